"""Random programs for the sandbox, the same for a seed: arithmetic, texts, lists, dicts, sorting, comprehensions,
regular expressions, JSON, classes, exceptions.  Each leaves a value in `result` that JSON holds exactly.

A program is a chain of statements; each takes variables that are there and adds one, so every result depends on many
operations.  Only what both interpreters define the same way is used (no hash order, no addresses, no clocks).
"""

import random

PATTERNS = ["[a-c]", r"\d+", r"\W", r"(\w)(\w)", "^.|.$", "e+?"]
WORDS = r"\w+"


class Writer:
    """Names of the variables there are, by kind."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.names: dict[str, list[str]] = {"int": [], "str": [], "list": [], "dict": []}

    def pick(self, kind: str) -> str:
        return self.random.choice(self.names[kind])

    def add(self, kind: str, expression: str, prefix: str = "", end: str = "") -> None:
        name = f"v{sum(map(len, self.names.values()))}"
        self.lines.append(f"{prefix}{name} = {expression}{end}")
        self.names[kind].append(name)

    def number(self, low: int = -50, high: int = 50) -> int:
        return self.random.randint(low, high)

    def word(self) -> str:
        return "".join(self.random.choice("abcdeXYZ 019_-éß€") for _ in range(self.random.randint(0, 9)))


def python_program(seed: int) -> str:
    w = Writer(seed)
    r = w.random
    w.lines.append("import re, json, math, itertools, collections, functools, textwrap, string, decimal, fractions")
    w.add("int", str(w.number(-10**12, 10**12)))
    w.add("str", repr(w.word()))
    w.add("list", repr([w.number() for _ in range(r.randint(1, 8))]))
    w.add("dict", repr({w.word(): w.number() for _ in range(r.randint(1, 5))}))
    moves = [
        lambda: w.add("int", f"{w.pick('int')} {r.choice('+-*')} {w.pick('int')} % {r.randint(2, 999)}"),
        lambda: w.add("int", f"({w.pick('int')} ** {r.randint(0, 5)}) % {r.randint(2, 10**9)}"),
        lambda: w.add("int", f"{w.pick('int')} // {r.choice([-7, -3, 2, 5, 11])} ^ {r.randint(0, 255)}"),
        lambda: w.add("int", f"sum(x * {w.number()} for x in {w.pick('list')})"),
        lambda: w.add("int", f"len({w.pick('str')}) + {w.pick('str')}.count({w.word()[:1]!r})"),
        lambda: w.add("int", f"math.gcd({w.pick('int')}, {r.randint(1, 10**6)})"),
        lambda: w.add("int", f"functools.reduce(lambda a, b: (a * 31 + b) % 1000003, {w.pick('list')}, 7)"),
        lambda: w.add("int", f"int(str(abs({w.pick('int')}))[::-1])"),
        lambda: w.add("int", f"max({w.pick('list')}, default=0) - min({w.pick('list')}, default=0)"),
        lambda: w.add("str", f"{w.pick('str')}.{r.choice(['upper', 'lower', 'title', 'swapcase', 'strip', 'casefold'])}()[:200]"),
        lambda: w.add("str", f"f'{{{w.pick('int')}:>{r.randint(3, 30)},}}|{{{w.pick('str')}!r:.40}}'"),
        lambda: w.add("str", f"'%s/%05d' % ({w.pick('str')}[:40], {w.pick('int')} % 99999)"),
        lambda: w.add("str", f"({w.pick('str')} + {w.word()!r})[{r.randint(-9, 3)}:{r.randint(4, 60)}]"),
        lambda: w.add("str", f"re.sub({r.choice(PATTERNS)!r}, {r.choice(['<>', '_', ''])!r}, {w.pick('str')})[:200]"),
        lambda: w.add("str", f"{w.word()!r}.join(map(str, {w.pick('list')}))[:200]"),
        lambda: w.add("str", f"json.dumps({w.pick('dict')}, sort_keys=True)[:200]"),
        lambda: w.add("str", f"{w.pick('str')}.translate(str.maketrans('aeX', 'éb9'))"),
        lambda: w.add("str", f"str(fractions.Fraction({w.pick('int')}, {r.randint(1, 99)}))"),
        lambda: w.add("str", f"str(decimal.Decimal({w.pick('int')}) / {r.randint(1, 97)})"),
        lambda: w.add("str", f"format({w.pick('int')} / {r.randint(1, 97)}, '.{r.randint(0, 12)}g')"),
        lambda: w.add("list", f"[x * {w.number()} + {w.number()} for x in {w.pick('list')} if x % {r.randint(2, 5)}][:50]"),
        lambda: w.add("list", f"sorted({w.pick('list')}, key=lambda x: (x % {r.randint(2, 9)}, -x))"),
        lambda: w.add("list", f"({w.pick('list')} + {w.pick('list')})[::{r.choice([1, 2, -1, -3])}][:50]"),
        lambda: w.add("list", f"[ord(c) % {r.randint(2, 300)} for c in {w.pick('str')}][:50]"),
        lambda: w.add("list", f"list(itertools.accumulate({w.pick('list')}, lambda a, b: (a - b) % 10007))"),
        lambda: w.add("list", f"[a * b for a, b in zip({w.pick('list')}, reversed({w.pick('list')}))]"),
        lambda: w.add("list", f"[len(m) for m in re.findall({WORDS!r}, {w.pick('str')})]"),
        lambda: w.add("list", f"sorted(set({w.pick('list')}) {r.choice('|&-^')} set({w.pick('list')}))[:50]"),
        lambda: w.add("dict", f"{{str(i): x for i, x in enumerate({w.pick('list')})}}"),
        lambda: w.add("dict", f"{{k[::-1]: v * {w.number()} for k, v in {w.pick('dict')}.items()}}"),
        lambda: w.add("dict", f"dict(collections.Counter({w.pick('str')}).most_common({r.randint(1, 5)}))"),
        lambda: w.add("dict", f"{{**{w.pick('dict')}, {w.word()!r}: {w.pick('int')} % 1000}}"),
        lambda: w.add("dict", f"dict(sorted({w.pick('dict')}.items(), key=lambda p: (p[1], p[0]))[:6])"),
        lambda: w.add("dict", f"json.loads(json.dumps({w.pick('dict')}))"),
        lambda: _guarded(w),
        lambda: _loop(w),
        lambda: _class(w),
        lambda: _generator(w),
    ]
    for _ in range(r.randint(6, 22)):
        r.choice(moves)()
    everything = ", ".join(name for names in w.names.values() for name in names)
    return "\n".join([*w.lines, f"print({w.pick('str')}, {w.pick('int')})", f"result = [{everything}]"]) + "\n"


def _guarded(w: Writer) -> None:
    w.lines += ["try:", f"    guard = {w.pick('list')}[{w.number(-9, 9)}] // ({w.pick('int')} % 2)",
                "except (IndexError, ZeroDivisionError) as error:", "    guard = len(type(error).__name__)"]
    w.add("int", "guard")


def _loop(w: Writer) -> None:
    w.lines += ["total, steps = 0, 0", f"for item in {w.pick('list')}:", f"    if item % {w.random.randint(2, 4)} == 0:",
                "        continue", "    while item % 7 and steps < 100:", "        item, steps = item - 1, steps + 1",
                "    total += item", "else:", "    total += steps"]
    w.add("int", "total")


def _class(w: Writer) -> None:
    w.lines += ["class Point:", "    def __init__(self, x, y=1):", "        self.x, self.y = x, y",
                "    def __add__(self, other):", "        return Point(self.x + other.x, self.y - other.y)",
                "    def __eq__(self, other):", "        return (self.x, self.y) == (other.x, other.y)",
                f"point = Point({w.pick('int')} % 100, {w.number()}) + Point({w.number()})"]
    w.add("list", "[point.x, point.y, int(point == Point(1, 2))]")


def _generator(w: Writer) -> None:
    w.lines += ["def walk(items):", "    for index, item in enumerate(items):", "        yield index * item",
                "        if item > 40:", "            return"]
    w.add("list", f"list(walk({w.pick('list')}))")


def javascript_program(seed: int) -> str:
    w = Writer(seed)
    r = w.random

    def text() -> str:
        return "'" + w.word() + "'"

    def add(kind: str, expression: str) -> None:
        w.add(kind, expression, "const ", ";")

    add("int", str(w.number(-10**9, 10**9)))
    add("str", text())
    add("list", str([w.number() for _ in range(r.randint(1, 8))]))
    add("dict", "{" + ", ".join(f"k{i}: {w.number()}" for i in range(r.randint(1, 5))) + "}")
    moves = [
        lambda: add("int", f"({w.pick('int')} {r.choice('+-*')} {w.pick('int')}) % {r.randint(2, 999)}"),
        lambda: add("int", f"Math.imul({w.pick('int')}, {w.number()}) {r.choice(['|', '^', '&', '>>', '>>>', '<<'])} {r.randint(0, 31)}"),
        lambda: add("int", f"Number((BigInt({w.pick('int')}) ** {r.randint(0, 9)}n) % {r.randint(2, 10**6)}n)"),
        lambda: add("int", f"{w.pick('list')}.reduce((a, b) => (a * 31 + b) % 1000003, 7)"),
        lambda: add("int", f"{w.pick('str')}.length + {w.pick('str')}.indexOf({text()})"),
        lambda: add("int", f"Math.max(...{w.pick('list')}, 0) - Math.min(...{w.pick('list')}, 0)"),
        lambda: add("int", f"parseInt(String(Math.abs({w.pick('int')})).split('').reverse().join(''), 10) % 1000000007"),
        lambda: add("str", f"{w.pick('str')}.{r.choice(['toUpperCase', 'toLowerCase', 'trim', 'normalize'])}().slice(0, 200)"),
        lambda: add("str", f"`${{{w.pick('int')}}}|${{{w.pick('str')}}}`.slice({r.randint(-9, 3)}, {r.randint(4, 60)})"),
        lambda: add("str", f"{w.pick('str')}.replace(/{r.choice(PATTERNS)}/gu, {text()}).slice(0, 200)"),
        lambda: add("str", f"{w.pick('list')}.join({text()}).slice(0, 200)"),
        lambda: add("str", f"JSON.stringify({w.pick('dict')}).slice(0, 200)"),
        lambda: add("str", f"{w.pick('str')}.padStart({r.randint(0, 30)}, '*').padEnd({r.randint(0, 40)}, '.')"),
        lambda: add("str", f"({w.pick('int')} / {r.randint(1, 97)}).to{r.choice(['Fixed(3)', 'Precision(9)', 'String(16)', 'String()'])}"),
        lambda: add("str", f"String(BigInt({w.pick('int')}) ** {r.randint(0, 9)}n)"),
        lambda: add("list", f"{w.pick('list')}.filter(x => x % {r.randint(2, 5)}).map(x => x * {w.number()} % 10007 + {w.number()}).slice(0, 50)"),
        lambda: add("list", "[...{0}].sort((a, b) => a % {1} - b % {1} || a - b)".format(w.pick("list"), r.randint(2, 9))),
        lambda: add("list", f"[...{w.pick('list')}, ...{w.pick('list')}].reverse().slice(0, 50)"),
        lambda: add("list", f"Array.from({w.pick('str')}, c => c.codePointAt(0) % {r.randint(2, 300)}).slice(0, 50)"),
        lambda: add("list", f"[...new Set({w.pick('list')})].toSorted((a, b) => b - a)"),
        lambda: add("list", f"{w.pick('list')}.flatMap((x, i) => i % 2 ? [x, x + 1] : []).slice(0, 50)"),
        lambda: add("list", f"[...{w.pick('str')}.matchAll(/{WORDS}/g)].map(m => m.index)"),
        lambda: add("dict", f"Object.fromEntries({w.pick('list')}.map((x, i) => ['k' + i, x]))"),
        lambda: add("dict", f"Object.fromEntries(Object.entries({w.pick('dict')}).map(([k, v]) => [k + 'x', v * {w.number()} % 1009]))"),
        lambda: add("dict", f"{{...{w.pick('dict')}, k{r.randint(0, 9)}: {w.pick('int')} % 1000}}"),
        lambda: add("dict", f"JSON.parse(JSON.stringify({w.pick('dict')}))"),
        lambda: add("int", f"(() => {{ try {{ return null.x; }} catch (e) {{ return e.name.length; }} finally {{ }} }})()"),
        lambda: add("list", f"[...(function* (xs) {{ for (const x of xs) {{ yield x * 2; if (x > 40) return; }} }})({w.pick('list')})]"),
        lambda: add("int", f"new (class {{ #n = {w.pick('int')} % 100; get twice() {{ return this.#n * 2; }} }})().twice"),
    ]
    for _ in range(r.randint(6, 22)):
        r.choice(moves)()
    everything = ", ".join(name for names in w.names.values() for name in names)
    return "\n".join([*w.lines, f"console.log({w.pick('str')}, {w.pick('int')});", f"var result = [{everything}];"]) + "\n"
