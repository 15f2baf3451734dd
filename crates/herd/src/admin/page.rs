//! Lists come in pages: `?limit=N` items, and a `next` cursor to ask for the rest with `?cursor=…`.
//!
//! A cursor holds the key of the last item that was read. Keys are distinct, ordered and never change, so what comes and
//! goes between two pages neither repeats nor hides anything else.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::{Kind, Problem};

const DEFAULT_LIMIT: usize = 100;
const LARGEST_LIMIT: usize = 1000;

/// A part of a list.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Where the list goes on: the `cursor` of the next page. `null` at the list's end.
    pub(crate) next: Option<String>,
}

/// Collects one page, and finds out whether the list goes on behind it.
#[derive(Debug)]
pub(super) struct Gathering<T> {
    limit: usize,
    items: Vec<T>,
}

impl<T> Gathering<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, items: Vec::new() }
    }

    /// How many more items are of use: one of them only tells that the list goes on.
    pub(super) fn room(&self) -> usize {
        (self.limit + 1).saturating_sub(self.items.len())
    }

    pub(super) fn extend(&mut self, items: impl IntoIterator<Item = T>) {
        let room = self.room();
        self.items.extend(items.into_iter().take(room));
    }

    /// The items of the page, and the cursor of the next one, if there is one.
    pub(super) fn finish(mut self, cursor: impl FnOnce(&T) -> String) -> (Vec<T>, Option<String>) {
        let more = self.items.len() > self.limit;
        self.items.truncate(self.limit);
        let next = self.items.last().filter(|_| more).map(cursor);
        (self.items, next)
    }
}

/// How many items are asked for, if that is said.
pub(super) fn limit(asked: Option<&str>) -> Result<Option<usize>, Problem> {
    match asked.map(str::parse::<usize>) {
        None => Ok(None),
        Some(Ok(limit @ 1..=LARGEST_LIMIT)) => Ok(Some(limit)),
        Some(_) => {
            Err(Problem::new(Kind::BadQuery).detail(format!("limit is no number from 1 to {LARGEST_LIMIT}; write one")))
        }
    }
}

/// How many items a page has.
pub(super) fn page_limit(asked: Option<&str>) -> Result<usize, Problem> {
    Ok(limit(asked)?.unwrap_or(DEFAULT_LIMIT))
}

/// Makes a cursor of a key. Its parts hold no zero byte.
pub(super) fn encode(parts: &[&str]) -> String {
    // Hexadecimal digits need no escape in a query, and look as opaque as they are meant.
    parts.join("\0").bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// The key in a cursor.
pub(super) fn decode<const N: usize>(cursor: &str) -> Result<[String; N], Problem> {
    key(cursor).ok_or_else(bad_cursor)
}

/// The cursor of a list was not made by that list.
pub(super) fn bad_cursor() -> Problem {
    Problem::new(Kind::BadQuery).detail("cursor is none of this list; send the `next` of the page before")
}

fn key<const N: usize>(cursor: &str) -> Option<[String; N]> {
    let is_hex = cursor.bytes().all(|byte| byte.is_ascii_hexdigit()) && cursor.len().is_multiple_of(2);
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Vec<u8> = cursor.as_bytes().chunks(2).map(digits).collect::<Option<_>>().filter(|_| is_hex)?;
    let text = String::from_utf8(bytes).ok()?;
    let parts: Vec<_> = text.split('\0').map(str::to_owned).collect();
    parts.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_next_one_only_if_something_is_left() {
        let page = |count: u32, limit| {
            let mut gathering = Gathering::new(limit);
            gathering.extend(1..=count);
            gathering.finish(u32::to_string)
        };
        assert_eq!(page(3, 2), (vec![1, 2], Some("2".to_owned())));
        assert_eq!(page(2, 2), (vec![1, 2], None));
        assert_eq!(page(0, 2), (vec![], None));
    }

    #[test]
    fn cursors_give_back_what_they_were_made_of() {
        let hostile = ["default", "", "a/../b?c=%00&~"];
        assert_eq!(decode::<3>(&encode(&hostile)).unwrap(), hostile);
    }

    #[test]
    fn limits_and_cursors_out_of_range_are_refused() {
        for text in ["0", "1001", "x", "-1", "", "1e2"] {
            assert!(limit(Some(text)).is_err(), "{text}");
        }
        for cursor in ["zz", "abc", "+1", "ff", "é", &encode(&["a", "b", "c"])] {
            assert!(decode::<2>(cursor).is_err(), "{cursor}");
        }
    }
}
