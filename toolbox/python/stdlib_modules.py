"""The standard library as the sandbox has it: modules are there because they are imported at build time."""
import importlib
import pkgutil

NAMES = """
    __future__ _markupbase _pydatetime _pydecimal _pyio _strptime _threading_local abc annotationlib argparse array ast asyncio base64 bdb binascii bisect builtins calendar cmath cmd code
    codecs codeop collections collections.abc colorsys compileall concurrent.futures configparser contextlib contextvars
    copy copyreg csv dataclasses datetime decimal difflib dis doctest email email.message email.mime.multipart
    email.mime.text email.parser email.policy email.utils encodings.idna encodings.punycode encodings.latin_1
    encodings.cp1252 encodings.utf_16 encodings.utf_32 encodings.ascii encodings.unicode_escape encodings.utf_8_sig
    encodings.rot_13 encodings.hex_codec encodings.base64_codec encodings.iso8859_15 enum errno filecmp fileinput
    fnmatch fractions ftplib functools gc getopt getpass gettext glob graphlib gzip hashlib heapq hmac html html.entities
    html.parser http http.client http.cookies imaplib importlib importlib.metadata importlib.resources inspect io
    ipaddress itertools json json.decoder json.encoder keyword linecache locale logging logging.handlers mailbox marshal
    math mimetypes modulefinder netrc ntpath numbers opcode operator optparse os os.path pathlib pdb pickle pickletools pkgutil platform plistlib poplib
    posixpath pprint profile cProfile pstats py_compile pyclbr pydoc queue quopri random re reprlib rlcompleter runpy
    sched secrets selectors shelve shlex shutil signal site smtplib socket socketserver sqlite3 stat statistics string
    string.templatelib stringprep struct symtable sys sysconfig tabnanny tarfile tempfile textwrap threading time
    timeit token tokenize tomllib trace traceback tracemalloc types typing unicodedata unittest unittest.mock urllib
    urllib.error urllib.parse urllib.request urllib.response urllib.robotparser uuid warnings wave weakref webbrowser
    wsgiref.util xml.dom.minidom xml.etree.ElementTree xml.sax xml.sax.saxutils xmlrpc.client zipapp zipfile zipimport
    zlib zoneinfo multiprocessing bz2 lzma ssl ctypes compression.zstd compression.gzip interpreters subprocess
""".split()

# All of these: much of it is imported late, from within functions.
PACKAGES = """
    asyncio collections concurrent concurrent.futures compression dbm email email.mime encodings html http importlib
    importlib.metadata importlib.resources json logging pathlib re sqlite3 string sysconfig tomllib unittest urllib
    wsgiref xml xml.dom xml.etree xml.parsers xml.sax xmlrpc zipfile zoneinfo
""".split()

missing = []


def _load(name):
    try:
        importlib.import_module(name)
    except (ImportError, AttributeError, OSError) as error:
        missing.append((name, str(error)))


def load():
    for name in NAMES:
        _load(name)
    for package in PACKAGES:
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__, package + "."):
            if not module.name.endswith(("__main__", "mbcs", "oem", "windows_events", "windows_utils", ".tool")):
                _load(module.name)
