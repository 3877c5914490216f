"""Starts `wstest` of the private root (Python 2).

zope is a namespace package, which `site.addsitedir` sets up and PYTHONPATH does not. pyOpenSSL is
not installed: only wss needs it, but the suite imports twisted's wrapper of it whatever it does.
"""

import os
import site
import sys
import types

here = os.path.dirname(os.path.abspath(__file__))
site.addsitedir(os.path.join(here, ".suite", "site"))

import twisted.internet

ssl = types.ModuleType("twisted.internet.ssl")
ssl.ClientContextFactory = ssl.DefaultOpenSSLContextFactory = object
sys.modules["twisted.internet.ssl"] = twisted.internet.ssl = ssl

from autobahntestsuite.wstest import run

sys.argv[0] = "wstest"
run()
