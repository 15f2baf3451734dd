//! The users and groups that this host has already, by the files that tell of them.

use std::{
    fs::File,
    io::{self, Read as _},
    ops::RangeInclusive,
    path::Path,
};

use crate::identity::{DEFAULT_RANGE, Range};

/// How much of a file is read, in bytes: some 100,000 accounts. A larger one is refused, since what was not read could
/// name a user of the range.
const MOST: u64 = 16 << 20;

/// What a file tells of, and how a line of it does.
#[derive(Clone, Copy, Debug)]
enum Format {
    /// passwd(5): `NAME:PASSWORD:UID:GID:…`.
    Users,
    /// group(5): `NAME:PASSWORD:GID:…`.
    Groups,
    /// subuid(5) and subgid(5): `NAME:FIRST:COUNT`.
    Subordinate,
}

const FILES: [(&str, Format); 4] = [
    ("/etc/passwd", Format::Users),
    ("/etc/group", Format::Groups),
    ("/etc/subuid", Format::Subordinate),
    ("/etc/subgid", Format::Subordinate),
];

/// Why users of a range cannot be had by workers alone: the first account of this host that has one of them, or a file
/// that cannot be read. A file that is not there names nobody.
pub(crate) fn clash(range: &RangeInclusive<u32>) -> Option<String> {
    clash_in(Path::new("/"), range)
}

fn clash_in(root: &Path, range: &RangeInclusive<u32>) -> Option<String> {
    FILES.iter().find_map(|(name, format)| {
        let file = root.join(name.trim_start_matches('/'));
        match read(&file) {
            Ok(text) => {
                let (number, whose) = find(&text, *format, range)?;
                Some(format!(
                    "{} cannot be workers' alone: {name} gives {whose} (line {number}); name users that nobody else has, \
                     such as {}",
                    Range(range),
                    Range(&DEFAULT_RANGE)
                ))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(format!(
                "whether others have users of {} cannot be told: {name}: {error}; make that file readable",
                Range(range)
            )),
        }
    })
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = Vec::new();
    File::open(file)?.take(MOST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MOST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {MOST} bytes")));
    }
    // Names may be in any encoding; numbers are not hurt by that.
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The first line, counted from 1, that gives somebody a number of the range, and what it gives to whom. What is no entry
/// is passed over.
fn find(text: &str, format: Format, range: &RangeInclusive<u32>) -> Option<(usize, String)> {
    text.lines().enumerate().find_map(|(index, line)| Some((index + 1, given(line, format, range)?)))
}

fn given(line: &str, format: Format, range: &RangeInclusive<u32>) -> Option<String> {
    if line.trim_start().starts_with('#') {
        return None;
    }
    let fields: Vec<&str> = line.split(':').map(str::trim).collect();
    let name = fields[0].escape_debug();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // Without a cast: a number may be larger than any user's.
    let (first, last) = (u64::from(*range.start()), u64::from(*range.end()));
    let is_in = |number: &u64| (first..=last).contains(number);
    match format {
        Format::Users => {
            let user = number(2).filter(is_in).map(|user| format!("user {user} to {name}"));
            user.or_else(|| Some(format!("group {} to {name}", number(3).filter(is_in)?)))
        }
        Format::Groups => Some(format!("group {} to {name}", number(2).filter(is_in)?)),
        Format::Subordinate => {
            let (begin, count) = (number(1)?, number(2)?);
            let end = begin.saturating_add(count.checked_sub(1)?);
            (begin <= last && first <= end).then(|| format!("{begin}-{end} to {name}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
                          # alice:x:1100:1100::/:/bin/sh\n\
                          +nis-users\n\
                          \n\
                          bob : x : 1500 : 1600 : Bob : /home/bob : /bin/sh\n\
                          nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n\
                          large:x:18446744073709551616:4294967296::/:\n";

    fn passwd(range: RangeInclusive<u32>) -> Option<(usize, String)> {
        find(PASSWD, Format::Users, &range)
    }

    #[test]
    fn the_first_account_of_a_range_is_found() {
        assert_eq!(passwd(1000..=2000), Some((5, "user 1500 to bob".to_owned())));
        assert_eq!(passwd(1500..=1500), Some((5, "user 1500 to bob".to_owned())));
        assert_eq!(passwd(1501..=2000), Some((5, "group 1600 to bob".to_owned())), "workers have groups, too");
        assert_eq!(passwd(60_000..=70_000), Some((6, "user 65534 to nobody".to_owned())));
        assert_eq!(
            find("a:x:50:\nb:x:1000:alice,bob\n", Format::Groups, &(1000..=1000)),
            Some((2, "group 1000 to b".into()))
        );
        assert_eq!(find("b:x:999:1000\n", Format::Groups, &(1000..=1000)), None);
    }

    #[test]
    fn what_lies_beside_a_range_and_what_is_no_account_is_no_matter() {
        assert_eq!(passwd(1..=1499), None, "a line that is commented out");
        assert_eq!(passwd(1601..=65_533), None);
        assert_eq!(passwd(65_535..=u32::MAX - 2), None, "numbers that no user has");
        assert_eq!(find(":::\n::\n\0\u{fffd}:x:a:b\nx\n", Format::Users, &(1..=u32::MAX - 2)), None);
    }

    #[test]
    fn subordinate_users_are_found_wherever_they_overlap() {
        let text = "# none\nalice:100000:65536\n1001:165536:10\nnone:5:0\nall:7:18446744073709551615\n";
        let find = |range: RangeInclusive<u32>| find(text, Format::Subordinate, &range).map(|(line, _)| line);
        assert_eq!(find(100_000..=165_535), Some(2));
        assert_eq!(find(1..=100_000), Some(2));
        assert_eq!(find(165_535..=165_535), Some(2));
        assert_eq!(find(165_536..=200_000), Some(3));
        assert_eq!(find(1..=6), None, "no number at all");
        assert_eq!(find(200_000..=200_000), Some(5), "an end beyond all numbers");
    }

    #[test]
    fn a_clash_names_the_file_the_line_and_the_remedy() {
        let root = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &[u8]| fs::write(root.path().join("etc").join(name), text).expect("a file");
        fs::create_dir(root.path().join("etc")).expect("a directory");
        assert_eq!(clash_in(root.path(), &(1000..=2000)), None, "what is not there names nobody");
        // In another encoding.
        write("subgid", b"j\xfcrgen:1000:1\n");
        let told = clash_in(root.path(), &(1000..=2000)).expect("there is one");
        assert!(told.contains("/etc/subgid gives 1000-1000 to j") && told.contains("(line 1)"), "{told}");
        write("passwd", PASSWD.as_bytes());
        let told = clash_in(root.path(), &(1000..=2000)).expect("there is one");
        assert_eq!(
            told,
            "1000-2000 cannot be workers' alone: /etc/passwd gives user 1500 to bob (line 5); name users that nobody else \
             has, such as 2100000000-2100065535"
        );
        assert_eq!(clash_in(root.path(), &DEFAULT_RANGE), None);
    }

    #[test]
    fn a_file_that_cannot_be_read_whole_is_a_clash() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("etc/group")).expect("a directory");
        let told = clash_in(root.path(), &DEFAULT_RANGE).expect("it cannot be told");
        assert!(told.contains("cannot be told: /etc/group: ") && told.contains("readable"), "{told}");
        fs::remove_dir(root.path().join("etc/group")).expect("it is empty");
        let file = File::create(root.path().join("etc/group")).expect("a file");
        file.set_len(MOST).expect("a sparse file");
        assert_eq!(clash_in(root.path(), &DEFAULT_RANGE), None);
        file.set_len(MOST + 1).expect("a sparse file");
        let told = clash_in(root.path(), &DEFAULT_RANGE).expect("it cannot be told");
        assert!(told.contains("more than 16777216 bytes"), "{told}");
    }
}
