"""The documentation site: Markdown of the repository, pages of the API, one build.

    python -m tools.docsite       # build/site, without a warning and with every link checked

`gather` copies the pages, `api` writes those of the public names, Zensical renders them, and
`links` checks the result. The pages are plain Markdown, so another generator can take them.
"""
