use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    str::FromStr,
    sync::{Arc, LazyLock},
};

use crate::Tenant;

/// The longest session ID, in bytes.
const MAX_LEN: usize = 256;

/// IDs up to this length (a UUID has 36 bytes) are held in place, so that the path of a request allocates nothing.
const INLINE_LEN: usize = 39;

/// Keyed once per process, so that hostile session IDs cannot be chosen to collide.
pub(crate) static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// What a caller names a session with: 1 to 256 bytes of visible ASCII without spaces, and the tenant it belongs to, if
/// there are tenants.
///
/// The same text names one session for each tenant, and another one for callers without a tenant. It is hashed once,
/// when it is made, and cloning one of up to 39 bytes allocates nothing.
#[derive(Clone)]
pub struct SessionId {
    hash: u64,
    tenant: Option<Tenant>,
    text: Text,
}

#[derive(Clone)]
enum Text {
    Inline { len: u8, bytes: [u8; INLINE_LEN] },
    Shared(Arc<str>),
}

impl SessionId {
    /// Checks `text` and makes it a session ID.
    ///
    /// # Errors
    /// [`InvalidSessionId`] if it is empty, longer than 256 bytes, or has a byte outside of `!` to `~`.
    pub fn new(text: impl AsRef<[u8]>) -> Result<Self, InvalidSessionId> {
        let bytes = text.as_ref();
        if bytes.is_empty() {
            return Err(InvalidSessionId::Empty);
        }
        if bytes.len() > MAX_LEN {
            return Err(InvalidSessionId::TooLong { len: bytes.len() });
        }
        if let Some(at) = bytes.iter().position(|byte| !byte.is_ascii_graphic()) {
            return Err(InvalidSessionId::NotVisible { byte: bytes[at], at });
        }
        let text = match u8::try_from(bytes.len()) {
            Ok(len) if bytes.len() <= INLINE_LEN => {
                let mut inline = [0; INLINE_LEN];
                inline[..bytes.len()].copy_from_slice(bytes);
                Text::Inline { len, bytes: inline }
            }
            _ => Text::Shared(String::from_utf8_lossy(bytes).into()),
        };
        Ok(Self { hash: HASHER.hash_one(bytes), tenant: None, text })
    }

    /// The session that this text names for `tenant`.
    #[must_use]
    pub fn of(self, tenant: &Tenant) -> Self {
        // Both parts are keyed, so that whoever may choose the one cannot make it collide with the other.
        let hash = HASHER.hash_one((self.text_hash(), tenant.hash()));
        Self { hash, tenant: Some(tenant.clone()), text: self.text }
    }

    /// To whom the session belongs.
    #[must_use]
    pub fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    fn text_hash(&self) -> u64 {
        if self.tenant.is_none() { self.hash } else { HASHER.hash_one(self.as_bytes()) }
    }

    /// The ID as it was given, without the tenant.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.text {
            Text::Inline { len, bytes } => {
                std::str::from_utf8(&bytes[..usize::from(*len)]).expect("visible ASCII is UTF-8")
            }
            Text::Shared(text) => text,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match &self.text {
            Text::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Text::Shared(text) => text.as_bytes(),
        }
    }
}

impl PartialEq for SessionId {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.as_bytes() == other.as_bytes() && self.tenant == other.tenant
    }
}

impl Eq for SessionId {}

impl PartialOrd for SessionId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SessionId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes()).then_with(|| self.tenant.cmp(&other.tenant))
    }
}

impl Hash for SessionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Display for SessionId {
    /// The text alone: who may see it knows whose it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            None => write!(f, "SessionId({:?})", self.as_str()),
            Some(tenant) => write!(f, "SessionId({:?} of {:?})", self.as_str(), tenant.name()),
        }
    }
}

impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

/// Why some text is no session ID. It never repeats the text, which may be hostile.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InvalidSessionId {
    /// There are no bytes in it.
    Empty,
    /// It is longer than 256 bytes.
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// It has a byte that is not visible ASCII.
    NotVisible {
        /// The first such byte.
        byte: u8,
        /// Where it stands, counted from 0.
        at: usize,
    },
}

impl fmt::Display for InvalidSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the session ID is empty; it needs 1 to {MAX_LEN} bytes"),
            Self::TooLong { len } => write!(f, "the session ID has {len} bytes; at most {MAX_LEN} are allowed"),
            Self::NotVisible { byte, at } => write!(
                f,
                "the session ID has the byte 0x{byte:02x} at offset {at}; only visible ASCII without spaces is allowed"
            ),
        }
    }
}

impl std::error::Error for InvalidSessionId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_ascii_of_every_allowed_length_is_kept_as_it_was() {
        for len in [1, INLINE_LEN - 1, INLINE_LEN, INLINE_LEN + 1, MAX_LEN] {
            let text = "~".repeat(len);
            let id = SessionId::new(&text).unwrap();
            assert_eq!(id.as_str(), text);
            assert_eq!(id, id.clone());
        }
    }

    #[test]
    fn empty_long_and_invisible_ids_are_refused_with_the_reason() {
        assert_eq!(SessionId::new(""), Err(InvalidSessionId::Empty));
        assert_eq!(SessionId::new("a".repeat(257)), Err(InvalidSessionId::TooLong { len: 257 }));
        for (text, byte, at) in
            [("a b", b' ', 1), ("\0", 0, 0), ("ab\n", b'\n', 2), ("\u{e9}", 0xc3, 0), ("a\x7f", 0x7f, 1)]
        {
            assert_eq!(SessionId::new(text), Err(InvalidSessionId::NotVisible { byte, at }));
        }
    }
}
