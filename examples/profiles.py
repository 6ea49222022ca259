"""User profiles instead of JSON files: import, update, count, export."""

import json
from pathlib import Path

import amberdb
from amberdb.profiles import UserProfiles, export_json, import_json

old = Path("old_profiles")
old.mkdir(exist_ok=True)
(old / "lin.json").write_text('{"user_name": "小林", "basic_info": {"city": "杭', encoding="utf-8")
(old / "lin.json.bak").write_text(
    json.dumps({"user_name": "小林", "basic_info": {"city": "杭州"}}), encoding="utf-8"
)

with amberdb.open("profiles.amber") as db:
    profiles = UserProfiles(db)
    report = import_json(profiles, old)
    print(f"{report.imported} imported, recovered: {report.recovered}")

    profiles.save("lin", basic_info={"age": 31}, interests={"drinks": ["茶"]})
    profiles.count_conversation("lin")
    lin = profiles.get("lin")
    assert lin is not None
    print(lin["basic_info"], lin["conversation_count"])
    assert lin["basic_info"] == {"city": "杭州", "age": 31}
    print(export_json(profiles, "exported"), "exported")
