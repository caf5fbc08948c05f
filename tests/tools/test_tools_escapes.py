"""Ways out of the sandbox, tried. Each program prints GOT where it got what it should not have; none may.

Most are run twice: as a model's code is run, and without the audit hook, so that the kernel's walls alone have to hold.
"""

# ruff: noqa: E501 -- programs of one line each
from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llmctl.tools import python
from llmctl.tools.python import isolated, run_python

pytestmark = pytest.mark.skipif(not isolated(), reason=f"no isolation here: {python.why_off()}")

ATTEMPTS = {
    # files
    "read a file": "print('GOT' if 'root' in open('/etc/passwd').read() else '')",
    "read by descriptor": "import os; os.read(os.open('{victim}', os.O_RDONLY), 100); print('GOT')",
    "read through a link": "import os; os.symlink('{victim}', 'p'); open('p').read(); print('GOT')",
    "read through the parent folder": "open('../' * 20 + '{victim}').read(); print('GOT')",
    "see the host's files": "import os; print('GOT' if {{'etc', 'home', 'usr'}} & set(os.listdir('/')) else '')",
    "see others' packages": "import os, sys\nfor p in sys.path: print(*['GOT' for n in os.listdir(p + '/site-packages')])",
    "write elsewhere": "open('{victim}', 'w').write('gone'); print('GOT')",
    "create elsewhere": "open('{folder}/new', 'w').write('x'); print('GOT')",
    "create beside the scratch folder": "open('../new', 'w').write('x'); print('GOT')",
    "write with pathlib": "import pathlib; pathlib.Path('{victim}').write_text('gone'); print('GOT')",
    "remove": "import os; os.remove('{victim}'); print('GOT')",
    "rename": "import os; os.rename('{victim}', 'mine'); print('GOT')",
    "link": "import os; os.link('{victim}', 'mine'); print('GOT')",
    "remove a tree": "import shutil; shutil.rmtree('{folder}'); print('GOT')",
    "remove everything": "import shutil; shutil.rmtree('/', ignore_errors=True)",
    "remove the scratch folder's parent": "import os; os.rmdir('/scratch'); print('GOT')",
    "rename the scratch folder": "import os; os.rename('/scratch', '/mine'); print('GOT')",
    "truncate": "import os; os.truncate('{victim}', 0); print('GOT')",
    "change the mode": "import os; os.chmod('{victim}', 0); print('GOT')",
    "a program that runs as another": "import os; open('s', 'w').close(); os.chmod('s', 0o4755); print('GOT')",
    "write into the library": "import os; open(os.path.dirname(os.__file__) + '/evil.py', 'w'); print('GOT')",
    "remount the library": "import os; os.rename(os.path.dirname(os.__file__), '/x'); print('GOT')",
    "shared memory": "open('/dev/shm/x', 'w').write('x'); print('GOT')",
    "a device": "open('/dev/sda', 'rb').read(1); print('GOT')",
    "make a device": "import os, stat; os.mknod('d', stat.S_IFBLK | 0o600, os.makedev(8, 0)); print('GOT')",
    "the terminal": "open('/dev/tty', 'w').write('x'); print('GOT')",
    # other processes and what they hold
    "the environment of the first process": "open('/proc/1/environ').read(); print('GOT')",
    "its own memory map": "open('/proc/self/maps').read(); print('GOT')",
    "open descriptors by name": "import os; print('GOT', os.listdir('/proc/self/fd'))",
    "the kernel's settings": "open('/sys/kernel/uevent_helper').read(); print('GOT')",
    "inherited descriptors": (
        "import os\nfor n in range(3, 1024):\n try: os.fstat(n); print('GOT', n)\n except OSError: pass"
    ),
    "the environment": "import os; os.environ['SECRET_OF_THE_TEST']; print('GOT')",
    "the whole environment": "import os; print('GOT' if any('SECRET' in k for k in os.environ) else '')",
    "the caller's sockets": (
        "import sys\nf = sys._getframe()\nwhile f:\n"
        " for v in list(f.f_locals.values()):\n  if type(v).__name__ == 'socket': v.send(b'x'); print('GOT')\n f = f.f_back"
    ),
    "read from the caller's input": "import os; print('GOT' if os.read(0, 10) else '')",
    "write to the caller's input": "import os; os.write(0, b'x'); print('GOT')",
    # processes and signals
    "a shell": "import os; print('GOT' if os.system('echo gone > {victim}') == 0 else '')",
    "a pipe to a shell": "import os; os.popen('echo gone > {victim}').read(); print('GOT')",
    "a subprocess": "import subprocess; subprocess.run(['rm', '{victim}']); print('GOT')",
    "a fork": "import os; os.fork(); print('GOT')",
    "a fork bomb": "import os\nwhile True: os.fork(); print('GOT')",
    "a thread": "import threading; threading.Thread(target=print, args=['GOT']).start()",
    "exec": "import os; os.execv('/bin/rm', ['rm', '{victim}'])",
    "exec of its own interpreter": "import os, sys; os.execv(sys.executable, ['python', '-c', 'print(\"GOT\")'])",
    "spawn": "import os; os.posix_spawn('/bin/rm', ['rm', '{victim}'], {{}}); print('GOT')",
    "the C module behind subprocess": (
        "import _posixsubprocess as p, os\nr, w = os.pipe()\np.fork_exec([b'/bin/rm'], [b'/bin/rm'], True, (), None, None,"
        " -1, -1, -1, -1, -1, -1, r, w, False, False, 0, None, None, None, -1, None, True); print('GOT')"
    ),
    "multiprocessing": "import multiprocessing; multiprocessing.Process(target=print, args=['GOT']).start()",
    "a signal to the parent": "import os, signal; os.kill(os.getppid(), signal.SIGKILL); print('GOT')",
    "a signal to the caller": "import os; os.kill({pid}, 9); print('GOT')",
    "a signal to all": "import os; os.kill(-1, 9); print('GOT')",
    "a signal to the group": "import os; os.killpg(0, 9); print('GOT')",
    "leave the session": "import os; os.setsid(); print('GOT')",
    # network
    "a socket": "import socket; socket.create_connection(('127.0.0.1', {port}), 1); print('GOT')",
    "a socket to listen": "import socket; socket.socket().listen(); print('GOT')",
    "a datagram": "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('8.8.8.8', 53)); print('GOT')",
    "a raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print('GOT')",
    "a unix socket": "import socket; socket.socket(socket.AF_UNIX).connect('{unix}'); print('GOT')",
    "an abstract unix socket": "import socket; socket.socket(socket.AF_UNIX).bind('\\0x'); print('GOT')",
    "the message bus": "import socket; socket.socket(socket.AF_UNIX).connect('/run/dbus/system_bus_socket'); print('GOT')",
    "a pair of sockets": "import socket; socket.socketpair(); print('GOT')",
    "the raw socket module": "import _socket; _socket.socket(); print('GOT')",
    "a web page": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/', timeout=1); print('GOT')",
    "a name": "import socket; socket.getaddrinfo('example.com', 80); print('GOT')",
    "the host's name": "import os; print('GOT' if os.uname().nodename == '{host}' else '')",
    # rights and limits
    "become root": "import os; os.setuid(0); print('GOT')",
    "another group": "import os; os.setgroups([0]); print('GOT')",
    "chroot": "import os; os.mkdir('c'); os.chroot('c'); print('GOT')",
    "the classic chroot escape": (
        "import os\nos.mkdir('c'); os.chroot('c')\nfor _ in range(99): os.chdir('..')\nos.chroot('.'); print('GOT')"
    ),
    "raise the limits": "import resource as r; r.setrlimit(r.RLIMIT_AS, (-1, -1)); print('GOT')",
    "raise the limits by a small part": "import resource as r; r.setrlimit(r.RLIMIT_NOFILE, (64, 64)); print('GOT')",
    "take the processor": "import os; os.nice(-20); print('GOT')",
    "a locked page": "import mmap; m = mmap.mmap(-1, 1 << 34); print('GOT')",
    # the interpreter
    "replace builtins under the hook": "import builtins; builtins.isinstance = id\nopen('{victim}').read(); print('GOT')",
    "replace the path functions": (
        "import os\nos.path.realpath = lambda p, **k: os.getcwd()\nopen('{victim}').read(); print('GOT')"
    ),
    "a path that changes its mind": (
        "class P(str):\n n = 0\n def __fspath__(self): return '{victim}'\nopen(P('a')).read(); print('GOT')"
    ),
    "reload what was taken away": (
        "import sys, importlib\nsys.modules.clear()\nimport posix; posix.open('{victim}', 0); print('GOT')"
    ),
    "the loader": (
        "import importlib.util as u\ns = u.spec_from_file_location('x', '{victim}'); u.module_from_spec(s)\n"
        "s.loader.exec_module(None); print('GOT')"
    ),
    "the modules of this toolkit": "import llmctl.tools.python as p; print('GOT', p)",
    "subclasses of object": (
        "for c in object.__subclasses__():\n if c.__name__ == 'Popen': c(['rm', '{victim}']); print('GOT')"
    ),
    "zip import": "import zipimport; zipimport.zipimporter('{victim}'); print('GOT')",
    "sqlite": "import sqlite3; sqlite3.connect('{folder}/x.db').execute('create table t(a)'); print('GOT')",
}  # fmt: skip


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory):
    """A port and a unix socket on this machine that somebody could reach."""
    path = str(tmp_path_factory.mktemp("s") / "s")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(path)
        unix.listen()
        tcp.setblocking(False)
        unix.setblocking(False)
        yield tcp, unix, path


@pytest.mark.parametrize("hook", [True, False], ids=["hook", "kernel"])
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_attempts_fail_and_harm_nothing(attempt, hook, tmp_path, monkeypatch, listening) -> None:
    tcp, unix, path = listening
    monkeypatch.setenv("SECRET_OF_THE_TEST", "1")
    victim = tmp_path / "victim"
    victim.write_text("whole")
    mode = victim.stat().st_mode
    code = ATTEMPTS[attempt].format(
        victim=victim, folder=tmp_path, port=tcp.getsockname()[1], unix=path, pid=os.getpid(), host=os.uname().nodename
    )
    said = run_python(code, hook=hook)
    assert "GOT" not in said, said
    assert victim.read_text() == "whole" and victim.stat().st_mode == mode and list(tmp_path.iterdir()) == [victim]
    for listener in (tcp, unix):
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert run_python("1 + 1") == "2"  # the next call is as good as new


# Numbers of x86_64. Each of these calls changes who one is, where one is, or what others have.
CALLS = {
    "socket": (41, 2, 1, 0), "socketpair": (53, 1, 1, 0, 0), "clone": (56, 17, 0, 0, 0, 0), "fork": (57,), "vfork": (58,),
    "execve": (59, 0, 0, 0), "kill": (62, 1, 9), "shmget": (29, 0, 4096, 0o1600), "semget": (64, 0, 1, 0o1600),
    "msgget": (68, 0, 0o1600), "chmod": (90, 0, 0o4777), "chown": (92, 0, 0, 0), "ptrace": (101, 0, 0, 0, 0),
    "syslog": (103, 3, 0, 0), "setuid": (105, 0), "setgid": (106, 0), "setpgid": (109, 0, 0), "setsid": (112,),
    "setreuid": (113, 0, 0), "setgroups": (116, 0, 0), "setresuid": (117, 0, 0, 0), "capset": (126, 0, 0),
    "mknod": (133, 0, 0o60600, 0x800), "personality": (135, 0x0400000), "setpriority": (141, 0, 0, -20),
    "sched_setscheduler": (144, 0, 1, 0), "mlockall": (151, 3), "modify_ldt": (154, 0, 0, 0), "pivot_root": (155, 0, 0),
    "prctl": (157, 4, 1, 0, 0, 0), "setrlimit": (160, 9, 0), "chroot": (161, 0), "acct": (163, 0),
    "settimeofday": (164, 0, 0), "mount": (165, 0, 0, 0, 0, 0), "umount2": (166, 0, 2), "swapon": (167, 0, 0),
    "reboot": (169, 0, 0, 0, 0), "sethostname": (170, 0, 0), "iopl": (172, 3), "ioperm": (173, 0, 1, 1),
    "init_module": (175, 0, 0, 0), "delete_module": (176, 0, 0), "quotactl": (179, 0, 0, 0, 0), "tkill": (200, 1, 9),
    "io_setup": (206, 1, 0), "timer_create": (222, 0, 0, 0), "clock_settime": (227, 0, 0), "mq_open": (240, 0, 66, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0), "add_key": (248, 0, 0, 0, 0, -3), "request_key": (249, 0, 0, 0, 0),
    "keyctl": (250, 0, -3, 1), "inotify_init": (253,), "unshare": (272, 0x10000000), "perf_event_open": (298, 0, 0, -1, -1, 0),
    "fanotify_init": (300, 0, 0), "name_to_handle_at": (303, 0, 0, 0, 0, 0), "open_by_handle_at": (304, 0, 0, 0),
    "setns": (308, 0, 0), "process_vm_readv": (310, 1, 0, 0, 0, 0, 0), "process_vm_writev": (311, 1, 0, 0, 0, 0, 0),
    "kcmp": (312, 1, 1, 0, 0, 0), "finit_module": (313, 0, 0, 0), "seccomp": (317, 1, 0, 0), "memfd_create": (319, 0, 0),
    "bpf": (321, 0, 0, 0), "execveat": (322, 0, 0, 0, 0, 0), "userfaultfd": (323, 1), "pkey_alloc": (330, 0, 0),
    "pidfd_send_signal": (424, 0, 9, 0, 0), "io_uring_setup": (425, 1, 0), "open_tree": (428, 0, 0, 0),
    "fsopen": (430, 0, 0), "pidfd_open": (434, 1, 0), "clone3": (435, 0, 0), "openat2": (437, 0, 0, 0, 0),
    "pidfd_getfd": (438, 0, 0, 0), "process_madvise": (440, 0, 0, 0, 0, 0), "mount_setattr": (442, 0, 0, 0, 0, 0),
    "landlock_create_ruleset": (444, 0, 0, 0), "memfd_secret": (447, 0), "a call that does not exist yet": (999,),
}  # fmt: skip

NATIVE = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")
@pytest.mark.parametrize("name", CALLS)
def test_native_code_gets_none_of_the_kernels_dangerous_calls(name: str) -> None:
    """With the hook off, ctypes works, as it would for somebody who found a hole in the interpreter."""
    arguments = ", ".join(f"ctypes.c_long({a})" for a in CALLS[name])
    said = run_python(f"{NATIVE}print(libc.syscall({arguments}), ctypes.get_errno())", hook=False)
    assert said == ("-1 38" if name == "clone3" else "-1 1"), said


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")
@pytest.mark.parametrize(
    "code",
    [
        "libc.syscall(0x40000000 + 41, 2, 1, 0); print('GOT')",  # the x32 numbers
        # machine code: mov eax, 20; int 0x80; ret (getpid by the 32-bit door)
        "import mmap; m = mmap.mmap(-1, 4096, prot=7); m.write(b'\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3')\n"
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))(); print('GOT')",
    ],
)
def test_other_doors_to_the_kernel_end_the_process(code: str) -> None:
    said = run_python(NATIVE + code, hook=False)
    assert said == "SystemError: the process ended with SIGSYS"


@pytest.mark.parametrize(
    "code",
    [
        "ctypes.string_at(0)",
        "ctypes.memset(id(list), 255, 400); list()",
        "import sys; sys.setrecursionlimit(10**9)\ndef f(g): return [g for _ in map(f, [g])]\nf(0)",
        "import os; os.abort()",
        "import os; os._exit(3)",
    ],
)
def test_a_crash_is_one_line_and_the_next_call_is_well(code: str) -> None:
    assert "SystemError: the process ended with" in run_python(NATIVE + code, hook=False)
    assert run_python("1 + 1") == "2"


GREEDY = {
    "a long string": "'x' * 10**10",
    "a list that grows": "a = [0]\nwhile True: a += a",
    "a large number": "1 << (1 << 40)",
    "anonymous memory": "import mmap; mmap.mmap(-1, 1 << 34)",
    "a zip bomb": "import gzip; gzip.decompress(gzip.compress(bytes(4 * 10**7), 1) * 20)",
    "a large file": "open('a', 'wb').write(b'x' * 10**8)",
    "a large hole": "import os; open('a', 'w').close(); os.truncate('a', 10**10)",
    "many large files": "for i in range(10**4): open(str(i), 'wb').write(bytes(10**6))",
    "many files": "import os\nfor i in range(10**6): os.mknod(str(i)) if i > 60 else open(str(i), 'w').close()",
    "many folders": "import os\nfor i in range(10**6): os.mkdir(str(i))",
    "deep folders": "import os\nfor i in range(10**6): os.mkdir('d' + '/d' * i)",
    "open files": "a = [open('a', 'w') for _ in range(1000)]",
    "pipes": "import os\na = [os.pipe() for _ in range(1000)]",
}


@pytest.mark.parametrize("hook", [True, False], ids=["hook", "kernel"])
@pytest.mark.parametrize("what", GREEDY)
def test_nothing_is_had_without_bound(what: str, hook: bool) -> None:
    said = run_python(GREEDY[what], seconds=2, hook=hook)
    assert "Error" in said or "SIG" in said, said
    assert run_python("import os; os.listdir('.')") == "[]"


LOOPS = {
    "a loop": "while True: pass",
    "a loop in C": "sum(range(10**12))",
    "a power": "pow(3, 10**8) % 7",
    "a regular expression": "import re; re.match('(a+)+$', 'a' * 40 + 'b')",
    "a sort": "max(iter(int, 1))",
    "sleep": "import time; time.sleep(60)",
    "deaf to signals": (
        "import signal\nfor s in range(1, 65):\n try: signal.signal(s, signal.SIG_IGN)\n except (OSError, ValueError): pass\n"
        "while True: pass"
    ),
    "deaf to exceptions": "while True:\n try:\n  while True: pass\n except BaseException: pass",
    "an exit that does not end": "import atexit, sys, time; atexit.register(time.sleep, 60); time.sleep(60)",
    "a destructor": "class A:\n def __del__(self):\n  while True: pass\na = A(); del a",
    "a repr": "class A:\n def __repr__(self):\n  while True: pass\nA()",
    "an import of itself": "import sys\nclass F:\n def find_spec(self, *a):\n  while True: pass\nsys.meta_path[:] = [F()]\nimport x",
}  # fmt: skip


@pytest.mark.parametrize("what", LOOPS)
def test_endless_code_is_ended_in_time(what: str) -> None:
    begun = time.monotonic()
    said = run_python(LOOPS[what], seconds=0.3)
    assert said.endswith("TimeoutError: it ran longer than 0.3 seconds"), said
    assert time.monotonic() - begun < 10


def test_endless_output_is_cut_and_its_writer_ended() -> None:
    begun = time.monotonic()
    assert len(run_python("while True: print('x' * 10**5)", seconds=30, output=100)) == 100
    assert len(run_python("import os\nwhile True: os.write(1, b'\\xff\\0' * 1000)", seconds=30, output=100)) == 100
    assert time.monotonic() - begun < 20


def test_output_is_text_whatever_is_written() -> None:
    assert run_python("import os; os.write(1, b'\\xff\\x00\\x1b[2J'); None") == "\ufffd\x00\x1b[2J"
    assert run_python("print('\\ud800')") == "\\ud800"


def children() -> list[str]:
    server = python._server().process.pid
    return Path(f"/proc/{server}/task/{server}/children").read_text().split()


def test_no_process_outlives_its_call() -> None:
    for code in ("1", "while True: pass", "import os; os.abort()"):
        run_python(code, seconds=0.2, hook=False)
    deadline = time.monotonic() + 10
    while children() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not children()


def test_a_killed_server_is_started_anew() -> None:
    python._server().process.kill()
    python._server().process.wait()
    assert run_python("1 + 1") == "2"


def test_calls_from_many_threads_and_from_forks_do_not_mix() -> None:
    found: dict[int, str] = {}

    def ask(i: int) -> None:
        found[i] = run_python(f"{i} * 2")

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == {i: str(2 * i) for i in range(20)}
    fork = "import os; from llmctl.tools.python import run_python as r; r('1'); p = os.fork(); print(r('6 * 7'))\nif p: os.wait()"
    done = subprocess.run([sys.executable, "-c", fork], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["42", "42"], done.stderr


WITHOUT_NAMESPACES = "echo 0 > /proc/sys/user/max_user_namespaces; exec {} -c '{}'"
ASK = 'from llmctl.tools.python import run_python as r; print(r("1 + 1")); print(r("import os; os.fork()", hook=False))'


@pytest.mark.parametrize("forced", [False, True])
def test_where_there_is_no_isolation_the_tool_is_off_unless_forced(forced: bool) -> None:
    """A machine without user namespaces, made by a user namespace that may have none of its own."""
    command = ["unshare", "-Ur", "sh", "-c", WITHOUT_NAMESPACES.format(sys.executable, ASK)]
    env = {**os.environ, python.FORCE: "1" if forced else ""}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    said = done.stdout.splitlines()
    if forced:
        assert said[0] == "2" and "Operation not permitted" in said[1], done  # the filter works all the same
    else:
        assert "user namespaces are refused" in said[0] and python.FORCE in said[0], done
