use proptest::prelude::*;

use super::*;

/// Head, data, trailers, and what came after the response.
type Whole = (Head, Vec<u8>, HeaderMap, Vec<u8>);

/// Feeds the bytes in pieces of the given sizes, over and over, and returns the head, the data, the trailers and what is
/// left when the response is complete.
fn decoded(bytes: &[u8], sizes: &[usize]) -> Result<Option<Whole>, NotHttp> {
    let (mut buffer, mut end, mut found) = (BytesMut::new(), EndOfHead::default(), None);
    let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
    let (mut rest, mut sizes) = (bytes, sizes.iter().cycle());
    loop {
        if found.is_none() {
            found = head(&mut buffer, &mut end, &Method::GET)?;
        }
        if let Some(head) = &mut found {
            while let Some(piece) = head.body.decode(&mut buffer)? {
                match piece {
                    Piece::Data(piece) => data.extend_from_slice(&piece),
                    Piece::Trailers(fields) => trailers = fields,
                }
            }
        }
        if let Some(head) = found.take_if(|head| head.body.is_done()) {
            return Ok(Some((head, data, trailers, [&buffer[..], rest].concat())));
        }
        if rest.is_empty() {
            return Ok(None);
        }
        let (piece, left) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        buffer.extend_from_slice(piece);
        rest = left;
    }
}

#[test]
fn responses_that_can_be_read_in_two_ways_are_not_read_at_all() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx : a\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0\r\n\r\n",
        "HTTP/1.1 99 Odd\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "220 mail.example.com ESMTP\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1 1\r\na\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10000000000000000\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n",
    ] {
        for sizes in [[usize::MAX], [1]] {
            assert_eq!(decoded(text.as_bytes(), &sizes).map(|_| ()), Err(NotHttp), "{text:?}");
        }
    }
}

#[test]
fn endless_heads_lines_and_trailers_are_given_up() {
    let long = "a".repeat(MAX_HEAD);
    let many: String = (0..=MAX_FIELDS).map(|number| format!("x{number}: y\r\n")).collect();
    for text in [
        format!("HTTP/1.1 200 OK\r\nx: {long}"),
        format!("HTTP/1.1 200 OK\r\nx: {long}\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;{long}"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: {long}"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n{many}\r\n"),
    ] {
        assert_eq!(decoded(text.as_bytes(), &[1000]).map(|_| ()), Err(NotHttp), "{}", &text[..60]);
    }
}

#[test]
fn the_connection_is_kept_only_where_both_sides_agree_on_the_end() {
    for (text, keeps) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: x, Close\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n", true),
        ("HTTP/1.1 204 No Content\r\n\r\n", true),
        ("HTTP/1.1 304 Not Modified\ncontent-length: 9\n\n", true),
    ] {
        let (head, data, ..) = decoded(text.as_bytes(), &[7]).unwrap().unwrap();
        assert_eq!((head.keeps_alive, &data[..]), (keeps, &b""[..]), "{text}");
    }
}

proptest! {
    #[test]
    fn chunks_come_back_whole_however_they_are_cut(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
        extension in prop::option::of("[a-z]{1,5}=[a-z]{1,5}"),
        trailer in prop::option::of("[a-z]{1,9}"),
        sizes in prop::collection::vec(1_usize..400, 1..5),
        beyond in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let extension = extension.map(|text| format!("; {text}")).unwrap_or_default();
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in &chunks {
            bytes.extend(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n");
        if let Some(value) = &trailer {
            bytes.extend(format!("X-Sum: {value}\r\n").as_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&beyond);
        let (head, data, trailers, rest) = decoded(&bytes, &sizes).unwrap().unwrap();
        prop_assert!(head.keeps_alive);
        prop_assert_eq!(data, chunks.concat());
        prop_assert_eq!(trailers.get("x-sum").map(|value| value.to_str().unwrap().to_owned()), trailer);
        prop_assert_eq!(rest, beyond);
    }

    #[test]
    fn no_bytes_whatever_make_the_decoder_fail_or_depend_on_how_they_are_cut(
        start in prop::sample::select(vec![
            "", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ]),
        rest in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b':'), any::<u8>()], 0..200),
        sizes in prop::collection::vec(1_usize..50, 1..5),
    ) {
        let bytes = [start.as_bytes(), &rest].concat();
        let shown = |result: Result<Option<Whole>, NotHttp>| {
            result.map(|found| found.map(|(head, data, trailers, rest)| (head.status, head.headers, data, trailers, rest)))
        };
        prop_assert_eq!(shown(decoded(&bytes, &sizes)), shown(decoded(&bytes, &[usize::MAX])));
    }
}
