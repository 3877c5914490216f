use super::super::target::query_decode;
use super::*;

const START: &str = "GET /echo HTTP/1.1\r\n";

fn limits() -> HeadLimits {
    HeadLimits {
        head_bytes_max: 400,
        target_bytes_max: 40,
        headers_max: 5,
        ..HeadLimits::default()
    }
}

fn parse(bytes: &[u8]) -> Result<Head<'_>, HeadError> {
    Head::parse(bytes, &limits())
}

#[test]
fn a_request_is_taken_apart() {
    let limits = HeadLimits::default();
    let head = Head::parse(
        b"GET /rooms/a%20b?x=1&name=J%C3%BCrgen+M&flag HTTP/1.1\r\n\
          HOST: example.org:8000\r\n\
          connection:\t keep-alive \r\n\
          X-Empty:\r\n\
          Connection: x, , Upgrade\r\n\
          X-Latin: \xe4\r\n\r\n",
        &limits,
    )
    .unwrap();
    assert_eq!(head.method(), "GET");
    assert_eq!(head.path(), "/rooms/a%20b");
    assert_eq!(head.decoded_path().unwrap(), "/rooms/a b");
    assert_eq!(head.query(), Some("x=1&name=J%C3%BCrgen+M&flag"));
    let value = |name| head.query_value(name).unwrap();
    assert_eq!(value("name").as_deref(), Some("Jürgen M"));
    assert_eq!(value("flag").as_deref(), Some(""));
    assert_eq!(value("none"), None);
    assert_eq!(value(""), None);
    assert_eq!(head.host(), Some("example.org:8000"));
    assert_eq!(head.header("hOsT"), Some("example.org:8000"));
    assert_eq!(head.header("x-empty"), Some(""));
    assert_eq!(head.header("x-latin"), None, "not UTF-8");
    assert_eq!(head.headers("x-latin").next(), Some(&b"\xe4"[..]));
    let tokens: Vec<_> = head.fields().list("connection").collect();
    assert_eq!(tokens, [&b"keep-alive"[..], b"x", b"Upgrade"]);
    assert!(head.fields().has_token("Connection", "upgrade"));
    assert!(!head.fields().has_token("Connection", "up"));
    assert!(!head.has_body() && !head.is_http_1_0());
}

#[test]
fn start_lines() {
    use HeadError::*;
    let cases: &[(&str, Result<(), HeadError>)] = &[
        ("GET / HTTP/1.1", Ok(())),
        ("GET / HTTP/1.9", Ok(())),
        ("get / HTTP/1.1", Ok(())),
        ("HEAD / HTTP/1.1", Ok(())),
        ("GET /a?b/?c:@ HTTP/1.1", Ok(())),
        ("GET /?q={[|]} HTTP/1.1", Ok(())),
        ("OPTIONS * HTTP/1.1", Ok(())),
        ("CONNECT example.org:443 HTTP/1.1", Ok(())),
        ("GET * HTTP/1.1", Err(BadTarget)),
        ("GET example.org:443 HTTP/1.1", Err(BadTarget)),
        ("CONNECT example.org HTTP/1.1", Err(BadTarget)),
        ("GET ftp://example.org/ HTTP/1.1", Err(BadTarget)),
        ("GET http:///path HTTP/1.1", Err(HostInvalid)),
        ("GET http://a@b/ HTTP/1.1", Err(HostInvalid)),
        ("GET /#part HTTP/1.1", Err(BadTarget)),
        ("GET /\"x HTTP/1.1", Err(BadTarget)),
        ("GET /\x7f HTTP/1.1", Err(UnencodedTarget)),
        ("GET /\0 HTTP/1.1", Err(UnencodedTarget)),
        ("GET /ü HTTP/1.1", Err(UnencodedTarget)),
        ("GET /?ü HTTP/1.1", Err(UnencodedTarget)),
        ("GET /%zz HTTP/1.1", Err(BadPercentEncoding)),
        ("GET /%4 HTTP/1.1", Err(BadPercentEncoding)),
        ("GET /?d=50% HTTP/1.1", Ok(())),
        ("GET /?a=%zz?%4 HTTP/1.1", Ok(())),
        ("GET /%?a HTTP/1.1", Err(BadPercentEncoding)),
        ("GET  / HTTP/1.1", Err(BadStartLine)),
        ("GET /  HTTP/1.1", Err(BadStartLine)),
        ("GET / HTTP/1.1 ", Err(BadStartLine)),
        (" GET / HTTP/1.1", Err(BadStartLine)),
        ("GET\t/\tHTTP/1.1", Err(BadStartLine)),
        ("GET /", Err(BadStartLine)),
        ("", Err(BadStartLine)),
        ("G(T / HTTP/1.1", Err(BadStartLine)),
        ("GET / http/1.1", Err(BadStartLine)),
        ("GET / HTTP/1", Err(BadStartLine)),
        ("GET / HTTP/1.10", Err(BadStartLine)),
        ("GET / HTTP/11", Err(BadStartLine)),
        ("GET / HTTP/2.0", Err(VersionUnsupported)),
        ("PRI * HTTP/2.0", Err(VersionUnsupported)),
        ("GET / HTTP/0.9", Err(VersionUnsupported)),
    ];
    for (line, expected) in cases {
        let bytes = format!("{line}\r\nHost: a\r\n\r\n");
        let result = parse(bytes.as_bytes()).map(|_| ());
        assert_eq!(result, *expected, "{line:?}");
    }
}

#[test]
fn header_lines() {
    use HeadError::*;
    let cases: &[(&[u8], Result<(), HeadError>)] = &[
        (b"A: b\r\n", Ok(())),
        (b"A:\r\n", Ok(())),
        (b"A: \xff\x80\t!\r\n", Ok(())),
        (b"!#$%&'*+-.^_`|~09az: 1\r\n", Ok(())),
        (b"A : b\r\n", Err(SpaceBeforeColon)),
        (b"A\t: b\r\n", Err(SpaceBeforeColon)),
        (b" A: b\r\n", Err(ObsFold)),
        (b"A: b\r\n c\r\n", Err(ObsFold)),
        (b"A: b\r\n\tc\r\n", Err(ObsFold)),
        (b" \r\n", Err(ObsFold)),
        (b"A: b\n", Err(BareLf)),
        (b"A: b\n\r\n", Err(BareLf)),
        (b"A: b\rc\r\n", Err(BareCr)),
        (b"A: b\r\r\n", Err(BareCr)),
        (b"A: b\0c\r\n", Err(BadFieldValue)),
        (b"A: \x01\r\n", Err(BadFieldValue)),
        (b"A: \x7f\r\n", Err(BadFieldValue)),
        (b": b\r\n", Err(BadFieldName)),
        (b" : b\r\n", Err(ObsFold)),
        (b"A\r\n", Err(BadFieldName)),
        (b"A b: c\r\n", Err(BadFieldName)),
        (b"\xc3\xa4: c\r\n", Err(BadFieldName)),
        (b"A(: c\r\n", Err(BadFieldName)),
        (b"Content-Length: 0\r\n", Ok(())),
        (b"Content-Length: 5\r\ncontent-length: 5\r\n", Ok(())),
        (b"Content-Length: 5, 5\r\n", Ok(())),
        (b"Content-Length: 5, 6\r\n", Err(BadContentLength)),
        (b"Content-Length: 5\r\nContent-Length: 6\r\n", Err(BadContentLength)),
        (b"Content-Length: +5\r\n", Err(BadContentLength)),
        (b"Content-Length: -1\r\n", Err(BadContentLength)),
        (b"Content-Length: \r\n", Err(BadContentLength)),
        (b"Content-Length: 0x1\r\n", Err(BadContentLength)),
        (b"Content-Length: 5,\r\n", Err(BadContentLength)),
        (b"Content-Length: 18446744073709551616\r\n", Err(BadContentLength)),
        (b"Transfer-Encoding: chunked\r\n", Ok(())),
        (b"Transfer-Encoding: gzip\r\nTransfer-Encoding: , Chunked ,\r\n", Ok(())),
        (b"Transfer-Encoding: gzip\r\n", Err(BadTransferEncoding)),
        (b"Transfer-Encoding: chunked, gzip\r\n", Err(BadTransferEncoding)),
        (b"Transfer-Encoding: chunked, chunked\r\n", Err(BadTransferEncoding)),
        (b"Transfer-Encoding: xchunked\r\n", Err(BadTransferEncoding)),
        (b"Transfer-Encoding:\r\n", Err(BadTransferEncoding)),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", Err(BadTransferEncoding)),
        (b"B: 1\r\nC: 2\r\nD: 3\r\nE: 4\r\n", Ok(())),
        (b"B: 1\r\nC: 2\r\nD: 3\r\nE: 4\r\nF: 5\r\n", Err(TooManyHeaders)),
    ];
    for (lines, expected) in cases {
        let bytes = [START.as_bytes(), b"Host: a\r\n", lines, b"\r\n"].concat();
        let result = parse(&bytes).map(|_| ());
        assert_eq!(result, *expected, "{:?}", lines.escape_ascii().to_string());
    }
}

#[test]
fn hosts() {
    use HeadError::*;
    type Case = (&'static [u8], Result<Option<&'static str>, HeadError>);
    let cases: &[Case] = &[
        (b"Host: example.org\r\n", Ok(Some("example.org"))),
        (b"Host: 127.0.0.1:80\r\n", Ok(Some("127.0.0.1:80"))),
        (b"Host: [::1]:80\r\n", Ok(Some("[::1]:80"))),
        (b"Host: [::1]\r\n", Ok(Some("[::1]"))),
        (b"Host: a_b%41:\r\n", Ok(Some("a_b%41:"))),
        (b"", Err(HostMissing)),
        (b"Host: a\r\nHost: a\r\n", Err(HostRepeated)),
        (b"Host:\r\n", Err(HostInvalid)),
        (b"Host: :80\r\n", Err(HostInvalid)),
        (b"Host: a b\r\n", Err(HostInvalid)),
        (b"Host: a/b\r\n", Err(HostInvalid)),
        (b"Host: u@a\r\n", Err(HostInvalid)),
        (b"Host: a:b\r\n", Err(HostInvalid)),
        (b"Host: a:65536\r\n", Err(HostInvalid)),
        (b"Host: a:+80\r\n", Err(HostInvalid)),
        (b"Host: a:80:80\r\n", Err(HostInvalid)),
        (b"Host: ::1\r\n", Err(HostInvalid)),
        (b"Host: [::1\r\n", Err(HostInvalid)),
        (b"Host: [::1]x\r\n", Err(HostInvalid)),
        (b"Host: [nope]\r\n", Err(HostInvalid)),
        (b"Host: a%4\r\n", Err(HostInvalid)),
        (b"Host: \xc3\xa4\r\n", Err(HostInvalid)),
        (b"Host: \xff\r\n", Err(HostInvalid)),
    ];
    for (lines, expected) in cases {
        let bytes = [START.as_bytes(), lines, b"\r\n"].concat();
        let result = parse(&bytes).map(|head| head.host());
        assert_eq!(result, *expected, "{:?}", lines.escape_ascii().to_string());
    }
    let old = parse(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(old.is_http_1_0());
    assert_eq!(old.host(), None);
    let chunked = parse(b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(chunked.map(|_| ()), Err(BadTransferEncoding));
}

#[test]
fn the_host_of_an_absolute_target_overrides_host() {
    for (target, path, query) in [
        ("http://example.org:80/echo?a=b", "/echo", Some("a=b")),
        ("WS://example.org:80?a=b", "/", Some("a=b")),
        ("https://example.org:80", "/", None),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: other\r\n\r\n");
        let head = parse(bytes.as_bytes()).unwrap();
        assert_eq!(head.host(), Some("example.org:80"), "{target}");
        assert_eq!((head.path(), head.query()), (path, query), "{target}");
        assert_eq!(head.target(), target);
    }
    // Host must be there and valid nevertheless.
    let bytes = b"GET http://example.org/ HTTP/1.1\r\n\r\n";
    assert_eq!(parse(bytes).map(|_| ()), Err(HeadError::HostMissing));
}

#[test]
fn statuses() {
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(40));
    let long_head = format!("{START}Host: a\r\nA: {}\r\n\r\n", "x".repeat(400));
    let many = format!("{START}Host: a\r\n{}\r\n", "A: b\r\n".repeat(5));
    let version = "GET / HTTP/3.0\r\n\r\n".to_owned();
    let plain = format!("{START}\r\n");
    for (bytes, status) in
        [(long_target, 414), (long_head, 431), (many, 431), (version, 505), (plain, 400)]
    {
        let error = parse(bytes.as_bytes()).map(|_| ()).unwrap_err();
        assert_eq!(error.status(), status, "{bytes}");
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn one_empty_line_before_the_request_is_ignored() {
    let bytes = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(find_head_end(bytes, 0), Some(bytes.len()));
    assert!(parse(bytes).is_ok());
    assert_eq!(find_head_end(b"\r\n\r\nGET", 0), Some(4));
    assert_eq!(parse(b"\r\n\r\n").map(|_| ()), Err(HeadError::BadStartLine));
}

#[test]
fn parse_takes_exactly_one_head() {
    for bytes in [
        &b""[..],
        b"GET / HTTP/1.1",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nx",
    ] {
        assert_eq!(parse(bytes).map(|_| ()), Err(HeadError::Incomplete), "{bytes:?}");
    }
}

/// The head ends at the same place wherever the input was split, and byte by byte.
#[test]
fn the_end_is_found_at_every_split() {
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "\r\n\r\n",
        "\n\n",
    ] {
        let bytes = format!("{head}\n\nframes\r\n\r\n");
        let bytes = bytes.as_bytes();
        let end = Some(head.len());
        assert_eq!(find_head_end(bytes, 0), end);
        for split in 0..head.len() {
            assert_eq!(find_head_end(&bytes[..split], 0), None, "{head:?} at {split}");
            assert_eq!(find_head_end(bytes, split), end, "{head:?} at {split}");
            assert_eq!(
                find_head_end(&bytes[..split + 1], split).is_some(),
                split + 1 == head.len()
            );
        }
    }
    assert_eq!(find_head_end(b"", 0), None);
    assert_eq!(find_head_end(b"ab", 9), None, "never out of bounds");
}

#[test]
fn bare_lf_is_refused_as_soon_as_the_head_ends() {
    let bytes = b"GET / HTTP/1.1\nHost: a\n\n";
    let end = find_head_end(bytes, 0).unwrap();
    assert_eq!(parse(&bytes[..end]).map(|_| ()), Err(HeadError::BareLf));
}

#[test]
fn what_is_certain_early() {
    use HeadError::*;
    let limits = limits();
    let long_target = format!("GET /{}", "x".repeat(40));
    let long_line = format!("{START}A: {}", "x".repeat(400));
    let cases: &[(&[u8], Result<(), HeadError>)] = &[
        (b"", Ok(())),
        (b"\r", Ok(())),
        (b"\r\n", Ok(())),
        (b"\r\nG", Ok(())),
        (b"GET", Ok(())),
        (b"GET ", Ok(())),
        (b"GET /", Ok(())),
        (START.as_bytes(), Ok(())),
        (&long_target.as_bytes()[..44], Ok(())),
        (long_target.as_bytes(), Err(TargetTooLong)),
        (&long_line.as_bytes()[..399], Ok(())),
        (&long_line.as_bytes()[..400], Err(HeadTooLarge)),
        (b"\x16\x03\x01\x02\x00\x01", Err(NotHttp)),
        (b"\n", Err(NotHttp)),
        (b"\rG", Err(NotHttp)),
        (b" GET", Err(NotHttp)),
        (b"GET\r\n", Err(NotHttp)),
        (b"\r\n\r\n", Err(NotHttp)),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF", Ok(())),
        (b"ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", Err(NotHttp)),
    ];
    for (bytes, expected) in cases {
        let result = check_partial(bytes, 0, &limits);
        assert_eq!(result, *expected, "{:?}", bytes.escape_ascii().to_string());
        // Byte by byte comes to the same.
        let bytewise =
            (1..=bytes.len()).try_for_each(|end| check_partial(&bytes[..end], end - 1, &limits));
        assert_eq!(bytewise, *expected, "{:?}", bytes.escape_ascii().to_string());
    }
}

/// Whatever the early check refuses, the parser would have refused as well.
#[test]
fn the_early_check_never_refuses_a_valid_head() {
    let valid = "\r\nGET /a?b HTTP/1.1\r\nHost: a\r\nCookie: c=d; e=f\r\n\r\n".as_bytes();
    assert!(parse(valid).is_ok());
    for start in [0, 2] {
        for end in 0..valid.len() - start {
            assert_eq!(check_partial(&valid[start..][..end], 0, &limits()), Ok(()));
        }
    }
}

#[test]
fn query_values_that_do_not_decode() {
    let head = parse(b"GET /%ff?a=%ff&b=1&c=a%2Bb HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(head.decoded_path(), Err(HeadError::BadPercentEncoding));
    assert_eq!(head.query_value("a"), Err(HeadError::BadPercentEncoding));
    assert_eq!(head.query_value("b").unwrap().as_deref(), Some("1"));
    assert_eq!(head.query_value("c").unwrap().as_deref(), Some("a+b"));
    assert_eq!(percent_decode("+%2f%41").unwrap(), "+/A");
    for broken in ["%", "%4", "%4g", "a%%41"] {
        assert!(percent_decode(broken).is_err(), "{broken}");
        assert_eq!(query_decode(broken).unwrap(), broken.replace("%41", "A"), "{broken}");
    }
    assert_eq!(query_decode("+%2f%41").unwrap(), " /A");
}

#[test]
fn secrets_stay_out_of_logs() {
    for (target, redacted) in [
        ("/echo", "/echo"),
        ("/echo?x=1", "/echo?[redacted]"),
        ("/echo?token=abc&x=1", "/echo?[redacted]"),
        ("/e?a=1;token=abc", "/e?[redacted]"),
        ("/e?abc", "/e?[redacted]"),
        ("/e?a?abc", "/e?[redacted]"),
        ("/e?", "/e?[redacted]"),
    ] {
        assert_eq!(redact_target(target), redacted);
    }
    let head = b"GET /?token=hush HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer hush\r\n\r\n";
    let shown = format!("{:?}", parse(head).unwrap());
    assert!(shown.contains("Authorization") && !shown.contains("hush"), "{shown}");
}

#[test]
fn authorities_compare_with_default_ports() {
    let same = |one, two, port| {
        let one = Authority::parse(one).unwrap();
        one.same_as(&Authority::parse(two).unwrap(), port)
    };
    assert!(same("Example.org", "example.ORG:80", 80));
    assert!(same("example.org:443", "example.org", 443));
    assert!(same("[::1]", "[0:0::1]:80", 80));
    assert!(!same("example.org", "example.org:81", 80));
    assert!(!same("example.org", "example.net", 80));
    assert!(!same("[::1]", "[::2]", 80));
    assert!(!same("[::1]", "localhost", 80));
}
