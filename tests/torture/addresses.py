"""Addresses to which an attacker would send the token, in all their spellings.

``{home}`` and ``{other}`` stand for ports, of the API and of a server beside it.
"""

from __future__ import annotations

#: Internal addresses that no server may redirect to: this computer, private nets, links, clouds' metadata.
PRIVATE = (
    *(
        "localhost",
        "127.0.0.1",
        "127.1",
        "127.0.0.2",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::]",
    ),
    *(
        "[::ffff:127.0.0.1]",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.1.1",
        "[fe80::1]",
        "[fc00::1]",
    ),
    *("169.254.169.254", "[fd00:ec2::254]", "metadata.google.internal", "169.254.169.254.nip.io", "2852039166"),
    *("[64:ff9b::a9fe:a9fe]", "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1"),
)
#: Where a redirect may lead; ``{home}`` and ``{other}`` are ports, of the API and of a server beside it.
LOCATIONS = (
    *("/elsewhere", "elsewhere", "?page=2", "#x", "", "http://127.0.0.1:{home}/elsewhere", "//127.0.0.1:{home}/x"),
    *("http://127.0.0.1:{other}/", "https://127.0.0.1:{other}/", "https://127.0.0.1:{home}/", "//127.0.0.1:{other}/"),
    *("///127.0.0.1:{other}/", "/\\127.0.0.1:{other}/", "\\\\127.0.0.1:{other}/", "http:/127.0.0.1:{other}/"),
    *(
        "HTTP://127.0.0.1:{other}/",
        "hTTpS://LOCALHOST:{other}/",
        "http://LocalHost:{other}/",
        "http://localhost:{home}/",
    ),
    *(
        "http://127.0.0.1:{home}@evil.example/",
        "http://evil.example@127.0.0.1:{other}/",
        "http://a:b@127.0.0.1:{home}/",
    ),
    *(
        "http://127.0.0.1:{home}\\@evil.example/",
        "http://127.0.0.1:{home}#@evil.example/",
        "http://evil.example?127.0.0.1",
    ),
    *("http://127.0.0.1.:{other}/", "http://127.0.0.1:{home}.evil.example/", "http://evil.example:{home}/"),
    *(
        "http://b\u00fccher.example/",
        "http://xn--bcher-kva.example/",
        "http://\uff45\uff56\uff49\uff4c.example/",
        "http://evil\u3002example/",
    ),
    *(
        "http://evil.example%00.servetel.in/",
        "http://evil.example%2f@127.0.0.1/",
        "http://[",
        "http://%zz/",
        "http://:80/",
    ),
    *(
        "file:///etc/passwd",
        "ftp://127.0.0.1:{other}/",
        "gopher://127.0.0.1:{other}/",
        "data:application/json,{{}}",
        "javascript:0",
    ),
    *(
        "ws://127.0.0.1:{other}/",
        "unix:///tmp/x",
        "/x%0d%0aHost: evil.example",
        "http://127.0.0.1:{other}/" + "x" * 4_000,
    ),
    *(f"http://{address}:{{other}}/latest/meta-data/" for address in PRIVATE),
)
STATUSES = (300, 301, 302, 303, 305, 307, 308)
#: Other ways in which a reply may name another address.
POINTERS = (
    ("Location", "http://127.0.0.1:{other}/"),
    ("Content-Location", "http://127.0.0.1:{other}/"),
    ("Refresh", "0; url=http://127.0.0.1:{other}/"),
    ("Link", '<http://127.0.0.1:{other}/?page=2>; rel="next"'),
    ("Link", "<http://127.0.0.1:{other}/>; rel=preconnect"),
    ("Alt-Svc", 'http/1.1="127.0.0.1:{other}"; ma=3600; persist=1'),
    ("Set-Cookie", "a=b; Domain=evil.example"),
    ("X-Accel-Redirect", "/elsewhere"),
    ("Host", "127.0.0.1:{other}"),
    ("X-Forwarded-Host", "127.0.0.1:{other}"),
    ("Forwarded", "host=127.0.0.1:{other}"),
    ("Strict-Transport-Security", "max-age=1"),
    ("WWW-Authenticate", 'Bearer realm="http://127.0.0.1:{other}/"'),
    ("Proxy-Authenticate", 'Basic realm="x"'),
)
#: Refused for ``base_url``: plain HTTP to another computer in any spelling, user info, other schemes.
BASE_URLS = (
    *(
        f"http://{address}"
        for address in PRIVATE
        if address not in ("localhost", "127.0.0.1", "127.0.0.2", "[::1]", "[::ffff:127.0.0.1]")
    ),
    *(
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "http://evil.example",
        "http://localhost.",
        "http://lvh.me",
    ),
    *(
        "https://a:b@api.servetel.in",
        "https://api.servetel.in@evil.example",
        "http://localhost@evil.example",
        "https://[",
        "https:///x",
    ),
    *(
        "https://api.servetel.in?x=1",
        "https://api.servetel.in#x",
        "https://api .servetel.in",
        "https://b\u00fccher.example",
    ),
    *(
        "https://api.servetel.in\r\nHost: evil.example",
        "https://api.servetel.in:99999",
        "//api.servetel.in",
        "api.servetel.in",
    ),
    *(
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "ws://127.0.0.1",
        "javascript:0",
        "http://\uff11\uff12\uff17.0.0.1",
        "HTTP://EVIL.EXAMPLE",
    ),
)
