"""Scripts written to harm: each ends in its time with an error or harmlessly, and the pool runs the next one."""

import time
from pathlib import Path

import pytest

from services.scripts.sandbox import Sandbox
from services.scripts.types import ScriptLimits
from tests.integration.scripts.notebook import Notebook

LIMITS = ScriptLimits(cpu_seconds=0.2, timeout_ms=5_000)

BUSY = {
    "loop": "while True: pass",
    "loop of calls": "def f(): pass\nwhile True: f()",
    "huge range": "for i in range(10**12): pass",
    "sum of a range": "sum(range(10**12))",
    "endless sum": "import itertools\nsum(itertools.repeat(1))",
    "endless any": "import itertools\nany(itertools.repeat(0))",
    "loop that catches everything": "while True:\n try:\n  while True: pass\n except BaseException: pass",
    "loop in finally": "try:\n 1/0\nfinally:\n while True: pass",
    "loop in repr": "class A:\n def __repr__(self):\n  while True: pass\nrepr(A())",
    "loop in eq": "class A:\n def __eq__(self, o):\n  while True: pass\nA() == A()",
    "loop in sort key": "def k(x):\n while True: pass\nsorted([1, 2], key=k)",
    "loop in next": "class A:\n def __iter__(self): return self\n def __next__(self): return 1\nfor x in A(): pass",
    "loop in an f-string": "def f():\n while True: pass\nx = f'{f()}'",
    "loop in a comprehension": "[x for x in range(10**12) if x < 0]",
    "loop in exec": "exec('while True: pass')",
    "loop in eval": "eval('[0 for x in range(10**12) if x < 0]')",
    "loop in async": "async def f():\n while True: pass\nawait f()",
    "hashing": "import hashlib\nh = b''\nwhile True: h = hashlib.sha256(h).digest()",
    "quadratic insertion": "l = []\nfor i in range(10**9): l.insert(0, None) if len(l) < 10**5 else l.clear()",
    "huge power": "pow(3, 10**6, 10**1000) and [pow(3, 10**6, 10**4000) for _ in range(10**6)]",
    "sleep": "import time\nwhile True: time.sleep(1000)",
    "async sleep": "import asyncio\nwhile True: await asyncio.sleep(1000)",
    "walrus loop": "while (x := 1): x",
    "match loop": "while True:\n match [1, 2]:\n  case [a, b]: pass",
    "set loop": "s = set()\nwhile True:\n s.add(1)\n s.discard(1)",
    "string search": "x = 'a' * 10**6\nwhile True: 'b' in x",
    "permutations": "import itertools\nfor p in itertools.permutations(range(12)): pass",
    "product": "import itertools\nfor p in itertools.product(range(9), repeat=12): pass",
    "mutual recursion that gives up": "def f(n):\n try: return f(n + 1)\n except RecursionError: return f(n)\nf(0)",
}

GREEDY = {
    "string": "'a' * 10**10",
    "bytes": "bytes(10**10)",
    "list": "[0] * 10**9",
    "tuple": "(0,) * 10**9",
    "list of a range": "list(range(10**9))",
    "growing list": "l = []\nwhile True: l.append('x' * 1000)",
    "growing dictionary": "d = {}\ni = 0\nwhile True:\n d[i] = i\n i += 1",
    "growing set": "s = set()\ni = 0\nwhile True:\n s.add(str(i))\n i += 1",
    "doubling string": "x = 'a'\nwhile True: x += x",
    "doubling list": "x = [0]\nwhile True: x = x + x",
    "tower of powers": "9 ** 9 ** 9",
    "shift": "1 << 10**10",
    "factorial": "import math\nmath.factorial(10**7)",
    "combinations": "import math\nmath.comb(10**7, 10**6)",
    "squaring": "x = 3\nwhile True: x = x * x",
    "zfill": "'1'.zfill(10**10)",
    "ljust": "'1'.ljust(10**10)",
    "center": "'1'.center(10**10, 'x')",
    "replace": "('a' * 10**6).replace('a', 'b' * 10**6)",
    "join": "('a' * 10**6).join('b' * 10**6)",
    "split": "('a,' * 10**7).split(',')",
    "expandtabs": "('\\t' * 10**6).expandtabs(10**6)",
    "f-string width": "f'{1:>10000000000}'",
    "format width": "'{:>10000000000}'.format(1)",
    "percent width": "'%10000000000d' % 1",
    "percent precision": "'%.1000000000f' % 1.5",
    "decimal": "import decimal\ndecimal.getcontext().prec = 10**9\nprint(decimal.Decimal(1) / 3)",
    "random bytes": "import random\nrandom.randbytes(10**10)",
    "base64": "import base64\nx = b'x' * 10**6\nwhile True: x = base64.b64encode(x)",
    "json text": "import json\nx = 'x' * 10**6\nwhile True: x = json.dumps([x, x])",
    "nested json": "import json\njson.loads('[' * 10**6)",
    "repeat": "import itertools\nlist(itertools.repeat('x'))",
    "chained copies": "import copy\nx = [0] * 1000\nwhile True: x = [copy.deepcopy(x), copy.deepcopy(x)]",
    "globals": "i = 0\nwhile True:\n exec(f'v{i} = \"x\" * 10000')\n i += 1",
    "closures": "f = lambda: 0\nl = []\nwhile True: l.append(lambda f=f: f)",
    "objects": "class A:\n def __init__(self): self.x = 'x' * 100\nl = []\nwhile True: l.append(A())",
    "slices": "l = [0] * 10**5\nwhile True: l[0:0] = l",
    "counter": "import collections\nc = collections.Counter()\ni = 0\nwhile True:\n c[str(i)] = i\n i += 1",
    "big digits": "int('9' * 10**6)",
    "digits of a power": "str(2 ** 1000000)",
    "huge strftime": "import datetime\ndatetime.datetime(2020, 1, 1).strftime('%Y' * 10**7)",
}

DEEP = {
    "recursion": "def f(): return f()\nf()",
    "recursion in repr": "class A:\n def __repr__(self): return repr(self)\nrepr(A())",
    "recursion in eq": "class A:\n def __eq__(self, o): return self == o\nA() == A()",
    "recursion in a key": "def k(x): return sorted([x], key=k)\nk(1)",
    "recursion in call": "class A:\n def __call__(self): return self()\nA()()",
    "recursion in eval": "def f(): return eval('f()')\nf()",
    "deep lists": "a = []\nfor i in range(10**5): a = [a]\nprint(a == a, a)",
    "deep comparison": "a, b = [], []\nfor i in range(10**4): a, b = [a], [b]\na == b",
    "deep hash": "t = ()\nfor i in range(10**5): t = (t,)\nhash(t)",
    "cycle": "l = []\nl.append(l)\nprint(l)\nl == [l]",
    "cycle in json": "import json\nl = []\nl.append(l)\njson.dumps(l)",
    "parentheses": "(" * 30_000 + ")" * 30_000,
    "brackets": "[" * 30_000 + "]" * 30_000,
    "signs": "-" * 60_000 + "1",
    "attributes": "x" + ".a" * 30_000,
    "sums": "1" + "+1" * 30_000,
    "nots": "not " * 16_000 + "1",
    "lambdas": "lambda: " * 8_000 + "1",
    "blocks": "\n".join(" " * depth + "if 1:" for depth in range(300)) + "\n" + " " * 300 + "pass",
    "deep eval": "eval('(' * 100000 + ')' * 100000)",
    "f-strings in f-strings": "x = " + "f'{" * 100 + "1" + "}'" * 100,
    "elifs": "if 0: pass\n" + "elif 0: pass\n" * 4_500,
}

PATTERNS = {
    "nested quantifiers": "import re\nre.match('(a+)+$', 'a' * 10**5 + 'b')",
    "adjacent quantifiers": "import re\nre.search('(x+x+)+y', 'x' * 10**6)",
    "alternatives": "import re\nre.match('(a|a)*$', 'a' * 10**5 + 'b')",
    "back-reference": "import re\nre.match(r'(a*)*\\1$', 'a' * 10**4 + 'b')",
    "counted repetition": "import re\nre.compile('((a{1000}){1000}){1000}')",
    "many alternatives": "import re\nre.compile('|'.join('a' * 20 + str(i) for i in range(10**5)))",
    "look-behind": "import re\nre.search('(?<=(a+)+b)c', 'a' * 10**4)",
    "substitution": "import re\nre.sub('', 'x' * 10**6, 'y' * 10**6)",
    "deep pattern": "import re\nre.compile('(' * 10**5 + ')' * 10**5)",
    "findall": "import re\nre.findall('', 'x' * 10**7)",
}

ESCAPES = {
    "subclasses": "().__class__.__bases__[0].__subclasses__()",
    "mro": "''.__class__.__mro__[1].__subclasses__()",
    "globals of a function": "def f(): pass\nf.__globals__['__builtins__']",
    "code of a lambda": "(lambda: 0).__code__.co_consts",
    "builtins": "__builtins__.open",
    "import function": "__import__('os').system('id')",
    "loader": "__loader__.load_module('os')",
    "frame of an exception": "try: 1/0\nexcept Exception as e: e.__traceback__.tb_frame.f_back.f_globals",
    "class of ctx": "ctx.__class__.__init__.__globals__",
    "class of ctx, hidden": "getattr(ctx, '__cl' + 'ass__').__init__.__globals__",
    "dictionary of ctx": "ctx.__dict__['x']",
    "instances of ctx": "type(ctx)()",
    "calling ctx": "ctx()",
    "private of ctx": "ctx._host",
    "reducing ctx": "ctx.__reduce__()",
    "format string": "'{0.__class__.__init__.__globals__}'.format(ctx)",
    "format string of ctx": "'{0._host}'.format(ctx)",
    "f-string of ctx": "f'{ctx._host}'",
    "subprocess": "import subprocess\nsubprocess.run(['id'])",
    "socket": "import socket\nsocket.create_connection(('127.0.0.1', 80))",
    "ctypes": "import ctypes\nctypes.CDLL(None)",
    "pickle": "import pickle\npickle.loads(b'cos\\nsystem\\n(S\"id\"\\ntR.')",
    "importlib": "import importlib\nimportlib.import_module('os')",
    "gc": "import gc\ngc.get_objects()",
    "inspect": "import inspect\ninspect.stack()",
    "http": "import http.client\nhttp.client.HTTPConnection('127.0.0.1').request('GET', '/')",
    "os.system": "import os\nos.system('id')",
    "os.fork": "import os\nwhile True: os.fork()",
    "os.kill": "import os\nos.kill(1, 9)",
    "environment": "import os\nos.environ['HOME']",
    "one variable of the environment": "import os\nos.getenv('HOME')",
    "listing": "import os\nos.listdir('/')",
    "removing": "import os\nos.remove('/etc/passwd')",
    "modules": "import sys\nsys.modules['os']",
    "exit": "import sys\nsys.exit(1)",
    "os._exit": "import os\nos._exit(1)",
    "reading": "open('/etc/passwd').read()",
    "reading itself": "open(__file__).read()",
    "reading with a path": "import pathlib\npathlib.Path('../../../etc/passwd').read_text()",
    "reading the environment": "open('/proc/self/environ').read()",
    "reading memory": "open('/proc/self/mem', 'rb').read(10)",
    "writing": "open('/tmp/colloquy-was-here', 'w').write('x')",
    "writing with a path": "import pathlib\npathlib.Path('/tmp/colloquy-was-here').write_text('x')",
    "making a directory": "import pathlib\npathlib.Path('/tmp/colloquy-was-here').mkdir()",
    "input": "input()",
    "breakpoint": "breakpoint()",
    "compiled code": "eval(compile('open(\"/etc/passwd\")', 'x', 'eval'))",
    "reading in eval": "eval('open(\"/etc/passwd\").read()')",
    "importing in exec": "exec('import socket')",
    "metaclass": "class M(type):\n def __call__(self): pass\n",
    "new type": "type('A', (object,), {'x': 1})",
    "deleting": "del ctx",
    "generator frame": "def f():\n yield 1\nf().gi_frame.f_back",
    "exit by exception": "raise SystemExit",
    "interrupt": "raise KeyboardInterrupt",
    "exceptions with two arguments": "raise ValueError('a', 1)",
    "exit with a number": "raise SystemExit(3)",
    "group of exceptions": "raise ExceptionGroup('x', [ValueError()])",
}

MISUSES = {
    "unknown function": "ctx.nope()",
    "private function": "ctx._call('generate', {})",
    "function of the host": "ctx.call('generate', {})",
    "huge function name": "getattr(ctx, 'x' * 10**6)()",
    "function as a value": "f = ctx.get_variable\nf('x')",
    "asking a model": "ctx.generate('x')",
    "asking a model in eval": "eval('ctx.gen' + 'erate(\"x\")')",
    "too few arguments": "ctx.set_output()",
    "too many arguments": "ctx.log(*range(1000))",
    "unknown argument": "ctx.log('x', level=1)",
    "wrong type": "ctx.get_raw_recent_messages('all')",
    "function as an argument": "ctx.log(print)",
    "object as an argument": "class A: pass\nctx.log(A())",
    "ctx as an argument": "ctx.log(ctx)",
    "keys that are no text": "ctx.set_output('x', {(1, 2): 3})",
    "list that holds itself": "l = []\nl.append(l)\nctx.set_output('x', l)",
    "dictionary that holds itself": "d = {}\nd['d'] = d\nctx.set_variable('x', d)",
    "tree of shared lists": "l = [0] * 100\nfor _ in range(9): l = [l] * 100\nctx.set_output('x', l)",
    "tree of shared dictionaries": "d = {}\nfor _ in range(60): d = {'a': d, 'b': d}\nctx.set_output('x', d)",
    "deep output": "l = 0\nfor _ in range(100): l = [l]\nctx.set_output('x', l)",
    "huge output": "ctx.set_output('x', 'x' * 10**6)",
    "enormous output": "ctx.set_output('x', 'x' * (20 * 2**20))",
    "output of many parts": "ctx.set_output('x', list(range(10**5)))",
    "huge integer": "ctx.set_output('x', 10**4000)",
    "infinite number": "ctx.set_output('x', 1e308 * 10)",
    "no number": "ctx.set_output('x', float('nan'))",
    "bytes": "ctx.set_output('x', b'x')",
    "output with a bad name": "ctx.set_output('__class__.x', 1)",
    "huge output name": "ctx.set_output('x' * 10**6, 1)",
    "bad variable": "ctx.set_variable('x', {1, 2})",
    "sorting with ctx": "sorted([2, 1], key=lambda x: ctx.get_variable('x'))",
    "gathering": "import asyncio\nawait asyncio.gather(ctx.log('x'), ctx.log('y'))",
    "awaiting": "await ctx.log('x')",
    "hostile time format": "ctx.get_current_time('%1000000000d')",
    "hostile time zone": "ctx.get_current_time('%H', '../../../etc/passwd')",
    "time beyond the calendar": "ctx.get_relative_time(1e300)",
    "hostile timestamp": "ctx.format_timestamp(1e300)",
    "deep json": "ctx.from_json('[' * 10**5)",
    "json of many digits": "ctx.from_json('9' * 10**5)",
    "huge json": "ctx.from_json('[' + '0,' * 10**5 + '0]')",
    "joining to a bomb": "ctx.join_strings([''] * 4000, 'x' * 200000)",
    "splitting to a bomb": "ctx.split_string('a,' * 10**5, ',')",
    "flood of printing": "while True: print('x' * 1000)",
    "huge print": "print('x' * 10**7)",
    "flood of log lines": "while True: ctx.log('x' * 1000)",
    "flood of calls": "while True: ctx.get_variable('x')",
    "flood of names": "while True:\n try: nope\n except NameError: pass",
    "flood of unknown functions": "while True:\n try: nope()\n except NameError: pass",
    "flood of files": "while True:\n try: open('x')\n except Exception: pass",
}

HARMLESS = {
    "empty": "",
    "nothing but a comment": "# pip install evil",
    "dependencies": "# /// script\n# dependencies = ['evil']\n# ///\n",
    "a name for ctx": "ctx = 5",
    "other builtins": "len = print = range = None",
    "setting on ctx": "ctx.x = 1\nctx.log = 2",
    "nul in text": "ctx.set_output('x', 'a\\0b')\nctx.set_variable('v', '\\0')",
    "lone surrogates": "ctx.set_output('x', '\\ud800' * 100)",
    "changing what was given": "m = ctx.get_raw_recent_messages(2)\nm.clear()\nm.append(m)",
    "printing oddities": "print('\\0', '\\x1b[2J', '\\ud800', end='')",
    "a huge last value": "'x' * 10**6",
    "a strange last value": "l = []\nl.append(l)\nl",
    "a tree as the last value": "l = [0] * 100\nfor _ in range(9): l = [l] * 100\nl",
    "returning": "return 1",
    "the interpreter's version": "import sys\nsys.version",
    "catching its error": "try:\n ctx.nope()\nexcept AttributeError: pass",
    "class as an argument": "class A: pass\nctx.log(A)",
    "outputs in a loop": "for i in range(400): ctx.set_output('x', i)",
}

MARK = Path("/tmp/colloquy-was-here")


KINDS = {
    "busy": BUSY,
    "greedy": GREEDY,
    "deep": DEEP,
    "pattern": PATTERNS,
    "escape": ESCAPES,
    "misuse": MISUSES,
    "harmless": HARMLESS,
}


@pytest.mark.parametrize(
    ("kind", "script"),
    [
        pytest.param(kind, script, id=f"{kind}: {name}")
        for kind, scripts in KINDS.items()
        for name, script in scripts.items()
    ],
)
async def test_an_attack_is_contained(sandbox: Sandbox, notebook: Notebook, kind: str, script: str) -> None:
    begun = time.monotonic()
    result = await sandbox.run(script, notebook, LIMITS, may_use_ai=False)
    assert time.monotonic() - begun < 3
    assert {name for name, _ in notebook.calls} <= {"get_variable", "set_variable", "get_raw_recent_messages"}
    assert len(result.printed.encode()) <= LIMITS.printed_bytes
    assert "\0" not in f"{result}"
    assert "root:" not in f"{result}", "that is /etc/passwd"
    assert not MARK.exists()
    match kind:
        case "harmless":
            assert result.error is None
        case "busy":
            assert result.error
            assert result.error.type in {"TimeoutError", "MemoryError", "RuntimeError"}
        case "escape" | "misuse":
            assert result.error
        case _:
            # A linear regular expression or a clever interpreter may come to an end after all.
            assert result.error is None or result.error.message
