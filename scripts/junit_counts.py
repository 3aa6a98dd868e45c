"""Prints "PASSED FAILED" of a JUnit file and, on stderr's side of the log, what failed.

A C test program counts as the tests that cmocka ran in it; one that died before its summary is one failure.
"""
import re
import sys
import xml.etree.ElementTree as ET


def cmocka_counts(output):
    ran = re.findall(r"\[  PASSED  \] (\d+) test", output)
    broken = re.findall(r"\[  FAILED  \] [^\n]*?(\d+) test\(s\), listed", output)
    return sum(map(int, ran)), sum(map(int, broken))


def main(path):
    passed = failed = 0
    for case in ET.parse(path).getroot().iter("testcase"):
        output = case.findtext("system-out") or ""
        status = case.get("status")
        if case.find("skipped") is not None or status in ("disabled", "notrun"):
            if status == "notrun":
                failed += 1
                print(f"not built: {case.get('name')}", file=sys.stderr)
            continue
        good, bad = cmocka_counts(output)
        if case.find("failure") is not None or case.find("error") is not None or status == "fail":
            passed, failed = passed + good, failed + max(bad, 1)
            print(f"FAIL  {case.get('name')}", file=sys.stderr)
            for line in output.splitlines()[-60:]:
                print(f"      {line}", file=sys.stderr)
        else:
            passed += max(good, 1)
    print(passed, failed)


if __name__ == "__main__":
    main(sys.argv[1])
