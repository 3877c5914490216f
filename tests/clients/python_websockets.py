"""Python's `websockets` against a running server, which is upgraded under its connections:

    python_websockets.py 127.0.0.1:PORT SERVER_BINARY CONTROL_SOCKET

Prints a line for each check, then `N passed, N failed`; exit status 1 if any failed.
"""

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Close
from websockets.sync.client import connect

ADDRESS, BINARY, CONTROL = sys.argv[1:]
HOST, PORT = ADDRESS.rsplit(":", 1)
WAIT = 10  # seconds that any one answer may take
MIB = 1024 * 1024
MASK = bytes(4)  # of frames written by hand
CHECKS = []


def check(title):
    """Registers a check under the title that its line shows."""

    def register(function):
        CHECKS.append((title, function))
        return function

    return register


def equal(seen, wanted, what="value"):
    if seen != wanted:
        raise AssertionError(f"{what}: {clip(seen)}, wanted {clip(wanted)}")


def clip(value):
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}… ({len(value)} long)"


def dial(path="/echo", **options):
    options.setdefault("compression", None)
    options.setdefault("max_size", None)
    return connect(
        f"ws://{ADDRESS}{path}",
        proxy=None,
        open_timeout=WAIT,
        close_timeout=WAIT,
        ping_interval=None,
        legacy=True,  # a connection, not something that makes one on entering a `with`
        **options,
    )


def echoed(ws, message):
    ws.send(message)
    equal(ws.recv(timeout=WAIT), message, "echo")


def closed_with(ws):
    """Reads until the server's Close and returns its code."""
    try:
        while True:
            ws.recv(timeout=WAIT)
    except ConnectionClosed as closed:
        if closed.rcvd is None:
            raise AssertionError(f"connection ended without a Close: {closed!r}") from None
        return closed.rcvd.code


# --- Echo, with and without compression -----------------------------------------------------------

MESSAGES = {
    "text": "Hello",
    "empty text": "",
    "binary": bytes(range(256)),
    "empty binary": b"",
    "125 bytes": b"a" * 125,
    "126 bytes": b"b" * 126,
    "65,535 bytes": b"c" * 65_535,
    "64 KiB of noise": secrets.token_bytes(65_536),
    "64 KiB of text": "steadfast " * 6_553 + "and six",
    "1 MiB of noise": secrets.token_bytes(MIB),
    "1 MiB of zeros": bytes(MIB),
    "UTF-8 of 1 to 4 bytes": "aß水🦀\u0000\u07ff\u0800\uffff\U00010000\U0010ffff" * 500,
}

for compression in (None, "deflate"):
    for name, message in MESSAGES.items():

        @check(f"echo, {'deflate' if compression else 'plain'}: {name}")
        def _(compression=compression, message=message):
            with dial(compression=compression) as ws:
                echoed(ws, message)

    @check(f"echo, {'deflate' if compression else 'plain'}: fragments")
    def _(compression=compression):
        with dial(compression=compression) as ws:
            for parts in (["Hel", "lo"], ["", "a", "", "b", ""], [b"\x00" * 70_000] * 3, ["🦀"] * 1_000):
                ws.send(iter(parts))
                equal(ws.recv(timeout=WAIT), parts[0][:0].join(parts), "echo")

    @check(f"echo, {'deflate' if compression else 'plain'}: a ping between fragments is answered at once")
    def _(compression=compression):
        with dial(compression=compression) as ws:

            def parts():
                yield "one "
                if not ws.ping(b"between").wait(WAIT):
                    raise AssertionError("no pong before the message was complete")
                yield "two"

            ws.send(parts())
            equal(ws.recv(timeout=WAIT), "one two", "echo")

    @check(f"echo, {'deflate' if compression else 'plain'}: 2,000 messages in flight come back in order")
    def _(compression=compression):
        with dial(compression=compression, max_queue=None) as ws:
            messages = [f"message {n} " + "x" * (n % 300) for n in range(2_000)]
            for message in messages:
                ws.send(message)
            equal([ws.recv(timeout=WAIT) for _ in messages], messages, "echoes")


@check("a UTF-8 character split over fragments")
def _():
    crab = "🦀".encode()
    with dial() as ws:
        ws.send(iter([crab[:1], crab[1:3], crab[3:]]), text=True)
        equal(ws.recv(timeout=WAIT), "🦀", "echo")


# --- permessage-deflate ---------------------------------------------------------------------------


@check("deflate is negotiated, without context takeover either way")
def _():
    with dial(compression="deflate") as ws:
        header = ws.response.headers["Sec-WebSocket-Extensions"]
        (extension,) = ws.protocol.extensions
        equal(extension.name, "permessage-deflate", "extension")
        for parameter in ("server_no_context_takeover", "client_no_context_takeover"):
            if parameter not in header:
                raise AssertionError(f"{parameter} is not in {header!r}")


@check("no offer, no extension")
def _():
    with dial() as ws:
        equal(ws.response.headers.get("Sec-WebSocket-Extensions"), None, "Sec-WebSocket-Extensions")


@check("what compresses well comes back compressed on the wire")
def _():
    with dial(compression="deflate") as ws:
        (extension,) = ws.protocol.extensions
        wire = []
        decode = extension.decode

        def recording(frame, **options):
            wire.append((frame.rsv1, len(frame.data)))
            return decode(frame, **options)

        extension.decode = recording
        echoed(ws, "steadfast " * 6_000)
        ((rsv1, size),) = wire
        if not rsv1 or size > 1_000:
            raise AssertionError(f"RSV1 {rsv1}, {size} bytes on the wire for 60,000")


for bits in (9, 10, 12, 15):

    @check(f"deflate with both windows of {bits} bits")
    def _(bits=bits):
        factory = ClientPerMessageDeflateFactory(server_max_window_bits=bits, client_max_window_bits=bits)
        with dial(extensions=[factory]) as ws:
            equal(len(ws.protocol.extensions), 1, "extensions agreed")
            if f"server_max_window_bits={bits}" not in ws.response.headers["Sec-WebSocket-Extensions"]:
                raise AssertionError(ws.response.headers["Sec-WebSocket-Extensions"])
            for _ in range(2):
                echoed(ws, " ".join(str(n * n) for n in range(20_000)))


@check("deflate offered with a window the server cannot serve: 101 without it")
def _():
    reply, _ = raw_handshake("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8\r\n")
    equal(reply.split(b"\r\n")[0].split()[1], b"101", "status")
    if b"permessage-deflate" in reply:
        raise AssertionError(reply)


# --- Ping, pong, close ----------------------------------------------------------------------------


@check("pings are answered, whatever they carry")
def _():
    with dial() as ws:
        for payload in (b"", b"x", bytes(range(125))):
            if not ws.ping(payload).wait(WAIT):
                raise AssertionError(f"no pong for {payload!r}")


@check("an unsolicited pong is ignored")
def _():
    with dial() as ws:
        ws.pong(b"nobody asked")
        echoed(ws, "still here")


for code, reason in ((1000, "bye"), (1001, ""), (1011, "ours"), (3000, "a" * 123), (4999, "schön")):

    @check(f"our close code {code} comes back")
    def _(code=code, reason=reason):
        ws = dial()
        ws.close(code, reason)
        if ws.protocol.close_rcvd is None:
            raise AssertionError("no Close in answer")
        equal(ws.protocol.close_rcvd.code, code, "code")
        equal(ws.protocol.close_rcvd_then_sent, False, "server closed first")


@check("a Close without a code is answered with a Close")
def _():
    ws = dial()
    send_raw(ws, 0x88, b"")
    if closed_with(ws) not in (1000, 1005):
        raise AssertionError(ws.protocol.close_rcvd)


# --- Limits and violations ------------------------------------------------------------------------


def send_raw(ws, first_byte, payload):
    """A masked frame that the library itself would not send; at most 125 bytes."""
    ws.socket.sendall(bytes([first_byte, 0x80 | len(payload)]) + MASK + payload)


for compression in (None, "deflate"):
    kind = "deflate" if compression else "plain"

    @check(f"{kind}: 1 MiB + 1 byte closes with 1009")
    def _(compression=compression):
        ws = dial(compression=compression)
        try:
            ws.send(bytes(MIB + 1))
        except ConnectionClosed:
            pass  # the server need not wait for all of it
        equal(closed_with(ws), 1009, "close code")

    @check(f"{kind}: fragments of more than 1 MiB in all close with 1009")
    def _(compression=compression):
        ws = dial(compression=compression)
        try:
            ws.send(iter([bytes(600_000)] * 2))
        except ConnectionClosed:
            pass
        equal(closed_with(ws), 1009, "close code")


@check("a declared length of 1 GiB closes with 1009 from the header alone")
def _():
    ws = dial()
    ws.socket.sendall(b"\x82\xff" + struct.pack("!Q", 1 << 30) + b"mask")
    equal(closed_with(ws), 1009, "close code")


@check("1,025 fragments close with 1008")
def _():
    ws = dial()
    try:
        ws.send(iter(["x"] * 1_025))
    except ConnectionClosed:
        pass
    equal(closed_with(ws), 1008, "close code")


VIOLATIONS = {
    "an unmasked frame": (b"\x81\x02hi", 1002),
    "RSV1 without its extension": (b"\xc1\x82" + MASK + b"hi", 1002),
    "RSV2": (b"\xa1\x82" + MASK + b"hi", 1002),
    "RSV3": (b"\x91\x82" + MASK + b"hi", 1002),
    "reserved data opcode 3": (b"\x83\x80" + MASK, 1002),
    "reserved control opcode 11": (b"\x8b\x80" + MASK, 1002),
    "a fragmented ping": (b"\x09\x80" + MASK, 1002),
    "a ping of 126 bytes": (b"\x89\xfe\x00\x7e" + MASK + b"x" * 126, 1002),
    "a continuation of nothing": (b"\x80\x82" + MASK + b"hi", 1002),
    "a new message inside a message": (b"\x01\x82" + MASK + b"hi" + b"\x81\x82" + MASK + b"ho", 1002),
    "a 16-bit length below 126": (b"\x82\xfe\x00\x7d" + MASK + b"x" * 125, 1002),
    "a 64-bit length below 65,536": (b"\x82\xff" + struct.pack("!Q", 65_535) + MASK, 1002),
    "a 64-bit length with its top bit": (b"\x82\xff" + struct.pack("!Q", 1 << 63) + MASK, 1002),
    "text that is not UTF-8": (b"\x81\x82" + MASK + b"\xc3\x28", 1007),
    "an encoded surrogate, before FIN": (b"\x01\x83" + MASK + b"\xed\xa0\x80", 1007),
    "text that ends inside a character": (b"\x81\x81" + MASK + b"\xf0", 1007),
    "a Close of 1 byte": (b"\x88\x81" + MASK + b"\x03", 1002),
    "a Close with bad UTF-8": (b"\x88\x84" + MASK + b"\x03\xe8\xff\xff", 1007),
    **{
        f"close code {code}": (b"\x88\x82" + MASK + struct.pack("!H", code), 1002)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)
    },
}

for name, (frames, wanted) in VIOLATIONS.items():

    @check(f"{name}: {wanted}")
    def _(frames=frames, wanted=wanted):
        ws = dial()
        ws.socket.sendall(frames)
        equal(closed_with(ws), wanted, "close code")


@check("compressed garbage: 1007")
def _():
    ws = dial(compression="deflate")
    send_raw(ws, 0xC2, b"\xff" * 20)
    equal(closed_with(ws), 1007, "close code")


@check("RSV1 on a continuation: 1002")
def _():
    ws = dial(compression="deflate")
    send_raw(ws, 0x41, b"")
    send_raw(ws, 0xC0, b"")
    equal(closed_with(ws), 1002, "close code")


@check("a Close of ours is accepted after a violation of another connection")
def _():
    healthy = dial()
    broken = dial()
    broken.socket.sendall(b"\x83\x80" + MASK)
    equal(closed_with(broken), 1002, "close code")
    echoed(healthy, "still here")
    healthy.close()
    equal(healthy.protocol.close_rcvd, Close(1000, ""), "Close")


# --- Handshake ------------------------------------------------------------------------------------


def raw_handshake(more="", path="/echo", version="13", key="dGhlIHNhbXBsZSBub25jZQ==", first="GET {} HTTP/1.1"):
    """Sends a handshake by hand; returns (head, what followed it)."""
    with socket.create_connection((HOST, int(PORT)), timeout=WAIT) as raw:
        request = (
            f"{first.format(path)}\r\nHost: {ADDRESS}\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: {version}\r\n{more}\r\n"
        )
        raw.sendall(request.encode())
        reply = b""
        while b"\r\n\r\n" not in reply:
            part = raw.recv(65_536)
            if not part:
                raise AssertionError(f"connection ended inside the answer: {reply!r}")
            reply += part
        head, _, rest = reply.partition(b"\r\n\r\n")
        return head, rest


def status(head):
    return int(head.split(b" ", 2)[1])


def header(head, name):
    for row in head.split(b"\r\n")[1:]:
        key, _, value = row.partition(b":")
        if key.strip().lower() == name.lower().encode():
            return value.strip().decode()
    return None


@check("the accept key of RFC 6455 §1.3")
def _():
    head, _ = raw_handshake()
    equal(status(head), 101, "status")
    equal(header(head, "Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "accept")


@check("an unknown path: 404")
def _():
    try:
        dial("/no/such/path")
    except InvalidStatus as refused:
        equal(refused.response.status_code, 404, "status")
        if not refused.response.body:
            raise AssertionError("no body that says why")
    else:
        raise AssertionError("accepted")


@check("a foreign Origin: 403; our own: accepted")
def _():
    try:
        dial(origin="https://evil.example")
    except InvalidStatus as refused:
        equal(refused.response.status_code, 403, "status")
    else:
        raise AssertionError("accepted")
    with dial(origin=f"http://{ADDRESS}") as ws:
        echoed(ws, "hello")


@check("a subprotocol the route does not know is left out of the answer")
def _():
    with dial(subprotocols=["nobody.knows.v1"]) as ws:
        equal(ws.subprotocol, None, "subprotocol")
        echoed(ws, "hello")


@check("another version: 426 that names 13")
def _():
    head, _ = raw_handshake(version="8")
    equal(status(head), 426, "status")
    equal(header(head, "Sec-WebSocket-Version"), "13", "Sec-WebSocket-Version")


@check("a key that is not 16 bytes: 400")
def _():
    head, _ = raw_handshake(key="c2hvcnQ=")
    equal(status(head), 400, "status")


@check("a plain GET on a WebSocket path: 426; POST: 405")
def _():
    for method, wanted in (("GET", 426), ("POST", 405)):
        http_connection = http.client.HTTPConnection(HOST, int(PORT), timeout=WAIT)
        http_connection.request(method, "/echo")
        answer = http_connection.getresponse()
        equal(answer.status, wanted, f"status of {method}")
        answer.read()
        http_connection.close()


@check("the demo page is there, and allows itself nothing from outside")
def _():
    http_connection = http.client.HTTPConnection(HOST, int(PORT), timeout=WAIT)
    http_connection.request("GET", "/")
    answer = http_connection.getresponse()
    body = answer.read()
    equal(answer.status, 200, "status")
    if not answer.headers["Content-Type"].startswith("text/html") or b"</html>" not in body:
        raise AssertionError(answer.headers["Content-Type"])
    if "default-src 'none'" not in (answer.headers["Content-Security-Policy"] or ""):
        raise AssertionError(f"policy: {answer.headers['Content-Security-Policy']!r}")
    http_connection.close()


@check("frames that come in one piece with the handshake are served")
def _():
    with socket.create_connection((HOST, int(PORT)), timeout=WAIT) as raw:
        raw.sendall(
            f"GET /echo HTTP/1.1\r\nHost: {ADDRESS}\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            + b"\x81\x82" + MASK + b"hi"
        )
        reply = b""
        while not reply.endswith(b"\x81\x02hi"):
            part = raw.recv(65_536)
            if not part:
                raise AssertionError(f"connection ended: {reply!r}")
            reply += part


# --- Rooms ----------------------------------------------------------------------------------------


def room(query=""):
    return f"/rooms/test-{secrets.token_hex(8)}{query}"


def join_all(path, options):
    """Opens one connection for each set of options and returns when each is in the room."""
    members = [dial(path + "?self=1", max_queue=None, **each) for each in options]
    for n, member in enumerate(members):
        member.send(f"here {n}")
    waiting = [{f"here {n}" for n in range(len(members))} for _ in members]
    # A member that came first sees all; a later one may have missed the earlier ones, so each is
    # in once it has seen itself, and the room is complete once the last one speaks again.
    for n, member in enumerate(members):
        while f"here {n}" in waiting[n]:
            waiting[n].discard(member.recv(timeout=WAIT))
    members[0].send("all here")
    for member in members:
        while member.recv(timeout=WAIT) != "all here":
            pass
    return members


@check("room: everyone but the sender; with self=1 the sender too")
def _():
    path = room()
    with dial(path) as silent, dial(path + "?self=1") as loud:
        loud.send("one")
        equal(loud.recv(timeout=WAIT), "one", "own message")
        # Whether `silent` was in already cannot be known until it has been heard.
        silent.send("two")
        equal(loud.recv(timeout=WAIT), "two", "the other's message")
        loud.send("three")
        equal(loud.recv(timeout=WAIT), "three", "own message")
        got = [silent.recv(timeout=WAIT)]
        if got == ["one"]:
            got = [silent.recv(timeout=WAIT)]
        equal(got, ["three"], "what the sender without self=1 sees")


@check("room: text stays text, binary stays binary, with and without compression")
def _():
    plain, packed = join_all(room(), [{}, {"compression": "deflate"}])
    for message in ("text " * 500, b"binary " * 500, "", b"", secrets.token_bytes(70_000)):
        for sender in (plain, packed):
            sender.send(message)
            for member in (plain, packed):
                equal(member.recv(timeout=WAIT), message, "message")
    plain.close()
    packed.close()


@check("room: other rooms hear nothing")
def _():
    (here,) = join_all(room(), [{}])
    (there,) = join_all(room(), [{}])
    here.send("secret")
    equal(here.recv(timeout=WAIT), "secret", "message")
    there.send("mine")
    equal(there.recv(timeout=WAIT), "mine", "first message in the other room")
    here.close()
    there.close()


@check("room: 8 members who all speak at once see one order")
def _():
    count = 300
    members = join_all(room(), [{"compression": "deflate" if n % 2 else None} for n in range(8)])
    orders = [[] for _ in members]
    errors = []

    def listen(n):
        try:
            while len(orders[n]) < count * len(members):
                orders[n].append(members[n].recv(timeout=WAIT))
        except Exception as error:  # told by the main thread
            errors.append(f"member {n} after {len(orders[n])} messages: {error!r}")

    def speak(n):
        for k in range(count):
            members[n].send(f"{n}:{k}")

    threads = [threading.Thread(target=job, args=(n,)) for n in range(len(members)) for job in (listen, speak)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(errors, [], "errors")
    for n, order in enumerate(orders):
        if order != orders[0]:
            first = next(k for k, (a, b) in enumerate(zip(order, orders[0])) if a != b)
            raise AssertionError(f"member {n} differs from member 0 at message {first}")
    for n in range(len(members)):
        own = [int(each.split(":")[1]) for each in orders[0] if each.startswith(f"{n}:")]
        equal(own, list(range(count)), f"messages of member {n}")
    for member in members:
        member.close()


@check("room: 200 connections come and go, and the room goes on")
def _():
    path = room()
    (stays,) = join_all(path, [{}])
    guests = [dial(path) for _ in range(200)]
    for guest in guests[::2]:
        guest.socket.shutdown(socket.SHUT_RDWR)
    for guest in guests[1::2]:
        guest.close()
        equal(guest.protocol.close_rcvd.code, 1000, "close code")
    stays.send("still here")
    equal(stays.recv(timeout=WAIT), "still here", "message")
    stays.close()


# --- Upgrades: the same connections before and after ---------------------------------------------


def operate(verb):
    """The JSON with which the server answers `steadfast VERB`, which has to succeed."""
    command = [BINARY, verb, "--control", CONTROL, "--json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=3 * WAIT, check=False)
    if run.returncode != 0:
        raise AssertionError(f"steadfast {verb}: exit status {run.returncode}: {run.stdout}{run.stderr}")
    return json.loads(run.stdout)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            # Behind the name comes the state: nobody may have taken the status of one that ended.
            return stat.read().rsplit(") ", 1)[1][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def successor_of(pid):
    """Waits for the end of a process that has handed over, and returns the pid of its successor.

    Until then both may answer on the control socket.
    """
    until = time.monotonic() + WAIT
    while is_alive(pid):
        if time.monotonic() > until:
            raise AssertionError(f"process {pid} does not end")
        time.sleep(0.005)
    return operate("status")["pid"]


def upgrade(held):
    """Replaces the server while at least this many connections are open: all of them move."""
    before = operate("status")["pid"]
    outcome = operate("upgrade")
    equal(outcome["outcome"], "upgraded", "outcome")
    equal(outcome["refused"], [], "refused")
    if outcome["connections"] < held:
        raise AssertionError(f"{outcome['connections']} connections moved, wanted {held}")
    equal(successor_of(before), outcome["pid"], "the process that serves")


def closes(ws):
    """The close handshake, with our code, and to its end."""
    ws.close(1000)
    equal(ws.protocol.close_rcvd, Close(1000, ""), "Close")
    equal(ws.protocol.close_rcvd_then_sent, False, "server closed first")


for compression in (None, "deflate"):
    kind = "deflate" if compression else "plain"

    @check(f"upgrade, {kind}: messages before and after")
    def _(compression=compression):
        ws = dial(compression=compression)
        for _ in range(2):
            for message in MESSAGES.values():
                echoed(ws, message)
            upgrade(held=1)
        for message in MESSAGES.values():
            echoed(ws, message)
        closes(ws)

    @check(f"upgrade, {kind}: 3 of them between the fragments of one message")
    def _(compression=compression):
        crab = "🦀".encode()
        with dial(compression=compression) as ws:

            def parts():
                yield b"before " * 10_000 + crab[:1]
                upgrade(held=1)
                yield crab[1:3]
                upgrade(held=1)
                if not ws.ping(b"between").wait(WAIT):
                    raise AssertionError("no pong before the message was complete")
                upgrade(held=1)
                yield crab[3:] + b" after" * 10_000

            ws.send(parts(), text=True)
            equal(ws.recv(timeout=WAIT), "before " * 10_000 + "🦀" + " after" * 10_000, "echo")
            echoed(ws, "and another")
            closes(ws)

    @check(f"upgrade, {kind}: inside a frame")
    def _(compression=compression):
        with dial(compression=compression) as ws:
            ws.protocol.send_text(("cut anywhere, 水 " * 300).encode(), fin=True)
            frame = b"".join(ws.protocol.data_to_send())
            for n in range(4):  # inside the header, behind it, and twice inside the payload
                cut = (1, 8, 11, len(frame) - 1)[n]
                ws.socket.sendall(frame[:cut])
                upgrade(held=1)
                ws.socket.sendall(frame[cut:])
                equal(ws.recv(timeout=WAIT), "cut anywhere, 水 " * 300, "echo")
            closes(ws)

    @check(f"upgrade, {kind}: 3 of them while messages are in flight: none is lost, doubled or late")
    def _(compression=compression):
        ws = dial(compression=compression, max_queue=None)
        sent = heard = 0
        enough = threading.Event()
        errors = []

        def text(n):
            return f"message {n} " + "x" * (n % 300)

        def speak():
            nonlocal sent
            try:
                while not enough.is_set() or sent < 2_000:
                    ws.send(text(sent))
                    sent += 1
                    if sent % 10 == 0:
                        time.sleep(0.001)
                ws.send("the last")
            except Exception as error:  # told by the main thread
                errors.append(f"sending message {sent}: {error!r}")

        def listen():
            nonlocal heard
            try:
                while (message := ws.recv(timeout=WAIT)) != "the last":
                    equal(message, text(heard), "echo")
                    heard += 1
            except Exception as error:
                errors.append(f"after {heard} messages: {error!r}")

        threads = [threading.Thread(target=job, daemon=True) for job in (speak, listen)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                # That it is spoken while the server is replaced is what this is about.
                before = heard
                until = time.monotonic() + WAIT
                while heard < before + 50 and not errors and time.monotonic() < until:
                    time.sleep(0.001)
                upgrade(held=1)
        finally:
            enough.set()
        for thread in threads:
            thread.join(3 * WAIT)
        equal(errors, [], "errors")
        equal(heard, sent, "messages")
        closes(ws)


@check("upgrade: pings are answered before and after, and a pong that is due comes")
def _():
    with dial() as ws:
        for _ in range(3):
            due = [ws.ping(bytes([n])) for n in range(20)]
            upgrade(held=1)
            due.append(ws.ping(b"after"))
            if not all(pong.wait(WAIT) for pong in due):
                raise AssertionError("a pong is missing")
        closes(ws)


@check("upgrade: a room stays together, one order for all, newcomers included")
def _():
    path = room()
    options = [{"compression": "deflate" if n % 2 else None} for n in range(6)]
    members = join_all(path, options)
    speaking = threading.Thread(target=lambda: [members[n % 6].send(f"during {n}") for n in range(600)])
    speaking.start()
    upgrade(held=6)
    speaking.join()
    orders = [[member.recv(timeout=WAIT) for _ in range(600)] for member in members]
    for order in orders:
        equal(order, orders[0], "order")
    equal(sorted(orders[0]), sorted(f"during {n}" for n in range(600)), "messages")
    newcomer = dial(path + "?self=1")
    members.append(newcomer)
    newcomer.send("hello")
    for member in members:
        equal(member.recv(timeout=WAIT), "hello", "the newcomer's message")
    members[0].send("welcome")
    for member in members:
        equal(member.recv(timeout=WAIT), "welcome", "an old member's message")
    for member in members:
        closes(member)


@check("upgrade: 200 connections move, and each goes on")
def _():
    with contextlib.ExitStack() as stack:
        guests = [dial(compression="deflate" if n % 2 else None) for n in range(200)]
        for guest in guests:
            stack.callback(guest.close)
            echoed(guest, "before")
        upgrade(held=200)
        for n, guest in enumerate(guests):
            echoed(guest, f"after {n}")


@check("SIGUSR2 upgrades as well")
def _():
    with dial(compression="deflate") as ws:
        echoed(ws, "before")
        pid = operate("status")["pid"]
        os.kill(pid, signal.SIGUSR2)
        successor_of(pid)
        echoed(ws, "after")
        closes(ws)


def main():
    failed = 0
    for title, function in CHECKS:
        started = time.monotonic()
        try:
            function()
        except Exception as error:
            failed += 1
            where = traceback.extract_tb(error.__traceback__)[1]
            print(f"FAIL  {title}: {type(error).__name__}: {error} (line {where.lineno})", flush=True)
        else:
            print(f"ok    {title} ({(time.monotonic() - started) * 1000:.0f} ms)", flush=True)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
