"""profile.py [SCENARIO...] > ../docs/PROFILE.md: where the instructions of a message go.

Runs scenarios of `checks instructions` under callgrind, each with two numbers of messages, and takes the
difference for every source file and function: what inlining has moved counts where it was written."""
import os, re, subprocess, sys, tempfile
from collections import Counter

here = os.path.dirname(os.path.abspath(__file__))
root = os.path.dirname(here)
target = os.environ.get("CARGO_TARGET_DIR", os.path.join(root, "target"))
FEW, MANY = 2048, 14336
SCENARIOS = sys.argv[1:] or ["local-ask-1", "local-send", "remote-ask-1", "remote-ask-128", "remote-send"]

AREAS = [
    ("rpc-core: protocol", r"rpc-core/src/proto/"),
    ("rpc-core: MessagePack, scan, frames", r"rpc-core/src/wire/"),
    ("rpc-core: refs, inbox, life of endpoints", r"rpc-core/"),
    ("rpc-actix: connections", r"rpc-actix/src/net/"),
    ("rpc-actix: the rest", r"rpc-actix/"),
    ("serde and rmp", r"/(rmp|rmp-serde|serde|serde_core|serde_bytes)-\d"),
    ("tokio, mio", r"/(tokio|tokio-util|mio)-\d"),
    ("actix", r"/actix(-rt)?-\d"),
    ("bytes", r"/bytes-\d"),
    ("malloc and free", r"malloc"),
    ("memcpy, memset", r"memmove|memset|memcpy|memcmp"),
    ("the program's own part", r"tests/src/|benchmarks/"),
    ("Rust's library", r"/rustc/|library/(std|core|alloc)"),
]


def area(file, home, function):
    """Rust's library counts with the function into which it is inlined."""
    if re.search(AREAS[-1][1], file):
        file = home
    for name, pattern in AREAS:
        if re.search(pattern, file):
            return name
    return "clock (vdso)" if "vdso" in file or "clock_gettime" in function else "system library"


def read(path):
    """Instructions by (file, file of the function, function), without those of what they call."""
    names, own = {"f": {}, "n": {}}, Counter()
    file = home = function = ""
    called = False

    def name(kind, text):
        match = re.match(r"\((\d+)\)(?: (.*))?", text)
        if match[2] is not None:
            names[kind][match[1]] = match[2]
        return names[kind][match[1]]

    for line in open(path):
        line = line.rstrip("\n")
        key, _, value = line.partition("=")
        if key in ("fl", "fi", "fe"):
            file = name("f", value)
        elif key == "fn":
            function, home = name("n", value), file
        elif key == "cfn":
            name("n", value)
        elif key in ("cfi", "cfl"):
            name("f", value)
        elif key == "calls":
            called = True
        elif re.match(r"[+\-*\d]", line):
            cost = line.split()
            if not called and len(cost) > 1:
                own[file, home, function] += int(cost[1])
            called = False
    return own


def counted(scenario, messages):
    with tempfile.NamedTemporaryFile() as out:
        program = os.path.join(target, "release", "checks")
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=" + out.name]
        command += [program, "serve", "counted", scenario, str(messages)]
        subprocess.run(command, check=True, capture_output=True)
        return read(out.name)


def short(name):
    """A function without the arguments of its generics; `<T as Trait>::f` is T::f."""
    name = name.replace("->", "")

    def inner(match):
        if " as " in match[2]:
            return match[1] + match[2].split(" as ")[0]
        return match[1] if re.match(r"[\w:]", match[1]) else match[1] + match[2]

    while (less := re.sub(r"(^|.)<([^<>]*)>", inner, name, count=1)) != name:
        name = less
    name = name.replace("impl ", "").replace("{{closure}}", "{}").replace("::::", "::").strip(":") or "?"
    return name.replace("|", "\\|")[-90:]


def where(file):
    file = re.sub(r".*/(registry/src/[^/]*|rustc/[^/]*|wt-[^/]*|main)/", "", file)
    return re.sub(r"^.*?(rpc-core|rpc-actix|tests)/", r"\1/", file)


def table(head, rows, total):
    print("| instructions | share | %s |\n|---:|---:|%s" % (head, "---|" * (head.count("|") + 1)))
    for cost, text in rows:
        print("| %.0f | %.1f %% | %s |" % (cost, 100 * cost / total, text))
    print()


print("""# Where the instructions of a message go

Written by `benchmarks/profile.py`, which needs valgrind: instructions of both sides of a message
together, by the source file in which they were written (inlined or not; Rust's library counts with
the function that it is inlined into), without the system's share.
The scenarios are those of `checks instructions`: an id, a name of 16 bytes and a payload of 64,
echoed by an ask; caller and endpoint on one thread.
""")
build = ["cargo", "build", "-q", "--release", "-p", "rpc-tests", "--bin", "checks"]
subprocess.run(build, check=True, cwd=root)
for scenario in SCENARIOS:
    few, many = counted(scenario, FEW), counted(scenario, MANY)
    each = {key: (many[key] - few[key]) / (MANY - FEW) for key in many}
    total = sum(each.values())
    areas, files, functions = Counter(), Counter(), Counter()
    for (file, home, function), cost in each.items():
        areas[area(file, home, function)] += cost
        files[where(home if re.search(AREAS[-1][1], file) else file)] += cost
        functions[short(function)] += cost
    print("## %s: %.0f instructions\n" % (scenario, total))
    table("part", [(cost, name) for name, cost in areas.most_common()], total)
    table("file", [(cost, "`%s`" % name) for name, cost in files.most_common(20)], total)
    table("function, with what is inlined into it", [(cost, "`%s`" % name) for name, cost in functions.most_common(20)], total)
