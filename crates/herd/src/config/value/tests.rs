use super::*;

#[test]
fn durations_are_read_as_go_writes_them() {
    for (text, millis) in [
        ("500ms", 500),
        ("15m", 900_000),
        ("1h30m", 5_400_000),
        ("1.5h", 5_400_000),
        ("2s500ms", 2500),
        ("0", 0),
        ("7d", 604_800_000),
    ] {
        assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for text in ["", "5", "5 m", "m", "-5s", "1h30", "1.2.3s", "5parsecs", ".s", "1e9s", "999999999d", "NaNs"] {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn sizes_are_bytes_with_binary_and_decimal_units() {
    assert_eq!(size("512MiB"), Ok(512 << 20));
    assert_eq!(size("500MB"), Ok(500_000_000));
    assert_eq!((size("4096B"), size("0")), (Ok(4096), Ok(0)));
    assert!(size("512").unwrap_err().problem.contains("without a unit"));
    for text in ["", "512", "MiB", "1.5GiB", "-1", "99999999999GiB", "5 parsecs"] {
        assert!(size(text).is_err(), "{text}");
    }
}

#[test]
fn limits_of_processes_are_positive_or_none() {
    assert_eq!(pids("100"), Ok(Some(100)));
    assert_eq!(pids("-1"), Ok(None));
    for text in ["0", "-2", "", "x", "+5", "4294967296"] {
        assert!(pids(text).is_err(), "{text}");
    }
}

#[test]
fn addresses_name_an_ip_and_a_port() {
    assert_eq!(address("localhost:0"), Ok("127.0.0.1:0".parse().unwrap()));
    assert_eq!(address("[::1]:80"), Ok("[::1]:80".parse().unwrap()));
    assert!(address(":8080").unwrap_err().remedy.contains("127.0.0.1,"));
    assert!(address("8080").is_err());
    assert_eq!(admin_address("off"), Ok(None));
    assert!(admin_address("0.0.0.0").is_err());
}

#[test]
fn ranges_of_workers_hold_at_least_one() {
    assert_eq!(worker_range("0..3"), Ok((0, 3)));
    assert_eq!(worker_range("4"), Ok((4, 4)));
    for text in ["0", "0..0", "3..1", "..", "1..", "a..b", "1..2..3"] {
        assert!(worker_range(text).is_err(), "{text}");
    }
}

#[test]
fn a_slip_of_the_pen_finds_the_word_that_was_meant() {
    let words = ["min_workers", "max_workers", "ttl"];
    assert_eq!(nearest("min_wokers", &words), Some("min_workers"));
    assert_eq!(nearest("max-workers", &words), Some("max_workers"));
    assert_eq!(nearest("tll", &words), Some("ttl"));
    assert_eq!(nearest("banana", &words), None);
    assert_eq!(nearest("warning", &["warn", "info"]), Some("warn"));
    assert_eq!(nearest("m", &words), None);
}
