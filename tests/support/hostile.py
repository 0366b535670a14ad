"""Graphs whose code takes over the helper that opens them: it runs as the helper, with the helper's socket."""

from __future__ import annotations

from typing import Any

import dask

ANSWER_FIRST = """
import os, struct, msgpack
table = {{"keys": ["stolen"], "dependencies": [[]], "nodes": [b"x"], "producers": [False], "priorities": [0],
          "blobs": [], "buffers": {{}}, "shuffles": {{}}, "annotations": {{}}, "for_all": {{}}, "code": [],
          "span_metadata": {{}}}}
data = msgpack.packb(table)
for number in range(4):  # whichever question it is
    os.write(3, struct.pack("<IQQ", 2, 8, len(data)) + struct.pack("<Q", number) + data)
{then}
"""

TAKEN_OVER = {
    "exits": "import os; os._exit(3)",
    "hangs": "while True: pass",
    "sleeps": "import time; time.sleep(3600)",
    "takes memory": "x = bytearray(1 << 40)\n",
    "takes memory in steps": "x = []\nwhile True: x.append(bytearray(1 << 26))",
    "recurses": "import sys; sys.setrecursionlimit(1 << 30)\ndef f(): f()\nf()",
    "writes garbage": "import os; os.write(3, bytes(range(256)) * 64); os._exit(0)",
    "announces too much": "import os, struct; os.write(3, struct.pack('<IQ', 1, 1 << 60))",
    "announces too many frames": "import os; os.write(3, b'\\xff' * 4)",
    "closes its socket": "import os; os.close(3)",
    "aborts": "import ctypes; ctypes.string_at(0)",
    "raises what cannot be pickled": "class E(Exception):\n  def __reduce__(self): raise ValueError\nraise E()",
    "answers twice": ANSWER_FIRST.format(then=""),
    "answers before it hangs": ANSWER_FIRST.format(then="while True: pass"),
}


class Hostile:
    """Opened, it runs `code`; in a worker, which opens what is submitted too, it would not be."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return exec, (self.code, {"__builtins__": __builtins__})


WAYS_OUT = {
    "a TCP socket": "import socket; socket.socket()",
    "a UNIX socket": "import socket; socket.socket(socket.AF_UNIX)",
    "a pair of sockets": "import socket; socket.socketpair()",
    "a process": "import os; os.fork()",
    "a program": "import os; os.execv('/bin/true', ['true'])",
    "a program's process": "import subprocess; subprocess.run(['/bin/true'])",
    "a new file": "open('/tmp/daskpki-way-out', 'w')",
    "a file among the modules": "import os, sys; open(os.path.join(sys.prefix, 'way-out'), 'w')",
    "a memory file": "import os; os.memfd_create('x')",
    "the passwords": "open('/etc/passwd').read()",
    "the parent's environment": "import os; open('/proc/%d/environ' % os.getppid()).read()",
    "its own environment": "open('/proc/self/environ').read()",
    "the parent's memory": "import os; open('/proc/%d/mem' % os.getppid(), 'rb')",
    "the parent's descriptors": "import os; os.listdir('/proc/%d/fd' % os.getppid())",
    "the list of processes": "import os; os.listdir('/proc')",
    "a signal to the parent": "import os, signal; os.kill(os.getppid(), 0)",
    "a pipe": "import os; os.pipe()",
    "a limit raised": "import resource; resource.prlimit(0, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))",
    "another directory": "import os; os.chdir('/')",
    "removing a file": "import os; os.unlink('/tmp/daskpki-way-out')",
    "a hard link": "import os; os.link('/etc/passwd', '/tmp/daskpki-way-out')",
    "another mode": "import os; os.chmod('/tmp', 0o777)",
    "tracing the parent": "import ctypes, os; c = ctypes.CDLL(None, use_errno=True)\n"
    "if c.ptrace(16, os.getppid(), 0, 0) == -1: raise PermissionError",
    "reading the parent by process_vm_readv": "import ctypes, os; c = ctypes.CDLL(None, use_errno=True)\n"
    "if c.syscall(310, os.getppid(), 0, 0, 0, 0, 0) == -1: raise PermissionError",
    "a descriptor of the parent's by pidfd": "import os; os.pidfd_open(os.getppid())",
    "io_uring": "import ctypes; c = ctypes.CDLL(None)\nif c.syscall(425, 1, 0) == -1: raise PermissionError",
    "a user namespace": "import ctypes; c = ctypes.CDLL(None)\nif c.unshare(0x10000000) == -1: raise PermissionError",
    "becoming dumpable": "import ctypes; c = ctypes.CDLL(None)\nif c.prctl(4, 1, 0, 0, 0) == -1: raise PermissionError",
    "a call of the 32-bit kind's number": "import ctypes; c = ctypes.CDLL(None)\n"
    "if c.syscall(359, 1, 1, 0) == -1: raise PermissionError",
}
"""What a helper could try, if it may do nothing but compute; each has to raise OSError."""

STILL_WORKS = {
    "numpy": "import numpy; assert (numpy.ones((50, 50)) @ numpy.ones((50, 50))).sum() == 125000",
    "pandas": "import pandas; assert len(pandas.DataFrame({'a': [1, 1, 2]}).groupby('a').sum()) == 2",
    "a thread": "import threading; t = threading.Thread(target=int); t.start(); t.join()",
    "a module that was not loaded": "import fractions, tomllib, xml.dom.minidom",
    "time and chance": "import time, random, os; time.sleep(0.01); random.random(); os.urandom(8)",
    "no descriptor but its own": "import os\nfor n in range(4, 256):\n  try: os.fstat(n)\n"
    "  except OSError: continue\n  raise AssertionError(n)",
    "a time zone": "import zoneinfo, datetime; datetime.datetime.now(zoneinfo.ZoneInfo('Europe/Berlin'))",
}


class Trial:
    """Opened, it tries every way and keeps what came of it, as an annotation that travels back."""

    def __init__(self, ways: dict[str, str]) -> None:
        self.ways = ways

    def __reduce__(self) -> Any:
        return attempts, (self.ways,)


class Configured:
    """An expression whose one key is a value of Dask's configuration."""

    def __dask_graph__(self) -> dict[str, Any]:
        return {dask.config.get("optimization.daskpki"): 1}

    def __dask_annotations__(self) -> dict[str, Any]:
        return {}


def attempts(ways: dict[str, str]) -> dict[str, str]:
    """By way, the error's type, or `done`."""
    results = {}
    for way, code in ways.items():
        try:
            exec(code, {})  # noqa: S102 - ours
        except BaseException as error:  # noqa: BLE001 - whatever it is
            results[way] = type(error).__name__ if not isinstance(error, OSError) else "refused"
        else:
            results[way] = "done"
    return results
