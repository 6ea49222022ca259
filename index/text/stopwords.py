"""Stop words: words that occur in most sentences of a language and distinguish none.

Invariants:
- Casefolded, NFKC, apostrophes as ': the form in which the analyzer looks them up.
- The lists are short on purpose: only function words (articles, pronouns, prepositions,
  auxiliaries, question words), so that no noun, main verb or number is lost.
- A change of a list is a change of the analyzer: VERSION increases, and indexes are rebuilt.
"""

from typing import Final

VERSION: Final = 1

STOP_WORDS: Final[dict[str, frozenset[str]]] = {
    language: frozenset(words.split())
    for language, words in {
        "english": """
            a about above after again against all also am an and any are aren't arent as at be
            because been before being below between both but by can can't cannot could couldn't
            couldnt did didn't didnt do does doesn't doesnt doing don't dont down during each few
            for from further had hadn't hadnt has hasn't hasnt have haven't havent having he he'd
            he'll he's her here here's hers herself him himself his how how's i i'd i'll i'm i've
            if im in into is isn't isnt it it'd it'll it's its itself ive just let's me more most
            mustn't my myself no nor not of off on once only or other ought our ours ourselves out
            over own same she she'd she'll she's should shouldn't shouldnt so some such than that
            that'd that's thats the their theirs them themselves then there there's these they
            they'd they'll they're they've theyre theyve this those through to too under until up
            very was wasn't wasnt we we'd we'll we're we've were weren't werent weve what what's
            whats when when's where where's which while who who's whom whose why why's will with
            won't wont would wouldn't wouldnt you you'd you'll you're you've youre your yours
            yourself yourselves youve
            """,
        "french": """
            a ai aie ait as au aux avait avec avez avoir avons c ce ces cet cette d dans de des du
            elle elles en es est et etait ete etre eu eux il ils j je l la le les leur leurs lui m
            ma mais me mes moi mon n ne nos notre nous on ont ou par pas pour qu que qui s sa se
            sera ses si son sont sur t ta te tes toi ton tu un une vos votre vous y
            \u00e0 \u00e9t\u00e9 \u00eatre \u00e9tait o\u00f9
            """,
        "german": """
            aber alle als also am an auch auf aus bei bin bis bist da damit das dass dein deine dem
            den der des die dich dir doch du durch ein eine einem einen einer eines er es euch euer
            f\u00fcr habe haben hat hatte hatten ich ihm ihn ihnen ihr ihre im in ist ja kann kein
            keine mein meine mich mir mit nach nicht noch nur ob oder ohne sein seine sich sie sind
            so um und uns unser unter vom von vor war waren warum was wenn wer wie wir wird wo zu
            zum zur \u00fcber
            """,
        "spanish": """
            a al algo ante como con contra cual cuando de del desde donde el ella ellas ellos en
            entre era eran es esa esas ese eso esos esta estaba estas este esto estos fue fueron ha
            han hay la las le les lo los me mi mis mucho muy nada ni no nos nosotros o os otra otro
            para pero poco por porque que quien se ser si sin sobre son su sus tambien te ti tiene
            tu tus un una uno unos y ya yo
            est\u00e1 est\u00e1n m\u00e1s m\u00ed qu\u00e9 s\u00ed tambi\u00e9n \u00e9l
            """,
        "italian": """
            a ad agli ai al alla alle allo anche c che chi ci come con cui d da dagli dai dal dalla
            dei degli del dell della delle dello di dove e ed era erano gli ha hai hanno ho i il in
            io l la le lei li lo loro lui ma me mi mia mio ne negli nei nel nella nelle noi non o
            per perche pi\u00f9 quale quando quella quelle quelli quello questa queste questi questo
            s se si sono su sua sue sugli sui sul sulla suo te ti tra tu un una uno v vi voi
            perch\u00e9 \u00e8
            """,
        "portuguese": """
            a ao aos as ate com como da das de dela dele deles do dos e ela elas ele eles em entre
            era essa esse esta este eu foi foram ha isso isto ja lhe mais mas me mesmo meu minha
            muito na nas nem no nos o os ou para pela pelas pelo pelos por qual quando que quem se
            sem ser seu seus so sua suas tambem te tem um uma voce
            at\u00e9 est\u00e1 h\u00e1 j\u00e1 n\u00e3o s\u00e3o s\u00f3 tamb\u00e9m voc\u00ea
            \u00e0 \u00e9
            """,
        "dutch": """
            aan al als bij dan dat de der deze die dit doch door een en er ge geen had heb hebben
            heeft het hier hij hoe hun ik in is ja je kan men met mij mijn na naar niet niets nog nu
            of om onder ons ook op over te tegen toch toen tot u uit van veel voor want waren was
            wat we werd wie wij wil worden zal ze zelf zich zij zijn zo zonder zou
            """,
    }.items()
}
"""By Snowball's name of the language. Other languages have no stop words."""
