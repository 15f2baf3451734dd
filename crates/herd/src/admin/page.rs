//! Lists come in pages: `?limit=N` items, and a `next` cursor to ask for the rest with `?cursor=…`.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::problem::Problem;

const DEFAULT_LIMIT: usize = 100;
const LARGEST_LIMIT: usize = 1000;

/// The part of a list that is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct PageQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

/// A part of a list.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Where the list goes on; `null` at its end.
    pub(crate) next: Option<String>,
}

impl PageQuery {
    /// Cuts the page out of `all`, whose items have distinct and ordered keys that don't change between requests. So
    /// what comes and goes meanwhile neither repeats nor hides anything else.
    pub(super) fn cut<T, K: Ord + AsRef<[u8]>>(
        self,
        mut all: Vec<T>,
        key: impl Fn(&T) -> K,
    ) -> Result<Page<T>, Problem> {
        let limit = limit(self.limit.as_deref())?.unwrap_or(DEFAULT_LIMIT);
        all.sort_by_cached_key(&key);
        if let Some(cursor) = &self.cursor {
            let last = decode(cursor).ok_or_else(|| {
                Problem::new(StatusCode::BAD_REQUEST, "The cursor is no cursor")
                    .detail("cursor is the `next` of the page before")
            })?;
            let first = all.partition_point(|item| key(item).as_ref() <= last.as_slice());
            all.drain(..first);
        }
        let more = all.len() > limit;
        all.truncate(limit);
        let next = all.last().filter(|_| more).map(|item| encode(key(item).as_ref()));
        Ok(Page { items: all, next })
    }
}

/// How many items are asked for, if that is said.
pub(super) fn limit(text: Option<&str>) -> Result<Option<usize>, Problem> {
    match text.map(str::parse::<usize>) {
        None => Ok(None),
        Some(Ok(limit @ 1..=LARGEST_LIMIT)) => Ok(Some(limit)),
        Some(_) => {
            let detail = format!("limit is a number from 1 to {LARGEST_LIMIT}");
            Err(Problem::new(StatusCode::BAD_REQUEST, "The limit is no limit").detail(detail))
        }
    }
}

/// Hexadecimal digits: they need no escape in a query, and look as opaque as they are meant.
fn encode(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(cursor: &str) -> Option<Vec<u8>> {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let hex = cursor.bytes().all(|byte| byte.is_ascii_hexdigit()) && cursor.len().is_multiple_of(2);
    if hex { cursor.as_bytes().chunks(2).map(digits).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: &str, cursor: Option<String>) -> Page<String> {
        let all = ["d", "a", "c", "b", "e"].map(str::to_owned).to_vec();
        PageQuery { limit: Some(limit.to_owned()), cursor }.cut(all, String::clone).unwrap()
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repetition() {
        let first = page("2", None);
        assert_eq!(first.items, ["a", "b"]);
        let second = page("2", first.next);
        assert_eq!(second.items, ["c", "d"]);
        let third = page("2", second.next);
        assert_eq!((third.items, third.next), (vec!["e".to_owned()], None));
        assert_eq!(page("5", None).next, None);
    }

    #[test]
    fn limits_and_cursors_out_of_range_are_refused() {
        for (limit, cursor) in
            [("0", None), ("1001", None), ("x", None), ("1", Some("zz")), ("1", Some("abc")), ("1", Some("+1"))]
        {
            let query = PageQuery { limit: Some(limit.to_owned()), cursor: cursor.map(str::to_owned) };
            assert!(query.cut(vec!["a".to_owned()], String::clone).is_err(), "{limit} {cursor:?}");
        }
    }
}
