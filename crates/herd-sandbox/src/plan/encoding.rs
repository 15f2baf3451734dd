//! How the fields of steps travel.

use std::borrow::Cow;

use super::step::{Access, Bytes, Text};
use crate::{
    Layer, Limit, Subnet,
    codec::{Decoder, Encoder, Malformed},
};

/// A value that travels in a step.
pub(super) trait Field<'a>: Sized {
    fn encode(&self, out: &mut Encoder);
    fn decode(bytes: &mut Decoder<'a>) -> Result<Self, Malformed>;
}

impl Field<'_> for bool {
    fn encode(&self, out: &mut Encoder) {
        out.bool(*self);
    }

    fn decode(bytes: &mut Decoder<'_>) -> Result<Self, Malformed> {
        bytes.bool()
    }
}

impl Field<'_> for u32 {
    fn encode(&self, out: &mut Encoder) {
        out.u32(*self);
    }

    fn decode(bytes: &mut Decoder<'_>) -> Result<Self, Malformed> {
        bytes.u32()
    }
}

impl Field<'_> for u64 {
    fn encode(&self, out: &mut Encoder) {
        out.u64(*self);
    }

    fn decode(bytes: &mut Decoder<'_>) -> Result<Self, Malformed> {
        bytes.u64()
    }
}

impl Field<'_> for Subnet {
    fn encode(&self, out: &mut Encoder) {
        out.u32(self.address().to_bits());
        out.u8(self.prefix());
    }

    fn decode(bytes: &mut Decoder<'_>) -> Result<Self, Malformed> {
        let address = bytes.u32()?.into();
        Self::with_prefix(address, bytes.u8()?).ok_or(Malformed)
    }
}

impl<'a> Field<'a> for Text<'a> {
    fn encode(&self, out: &mut Encoder) {
        out.c_string(self);
    }

    fn decode(bytes: &mut Decoder<'a>) -> Result<Self, Malformed> {
        bytes.c_string().map(Cow::Borrowed)
    }
}

impl<'a> Field<'a> for Bytes<'a> {
    fn encode(&self, out: &mut Encoder) {
        out.bytes(self);
    }

    fn decode(bytes: &mut Decoder<'a>) -> Result<Self, Malformed> {
        bytes.bytes().map(Cow::Borrowed)
    }
}

impl<'a, T: Field<'a>> Field<'a> for Vec<T> {
    fn encode(&self, out: &mut Encoder) {
        out.length(self.len());
        self.iter().for_each(|item| item.encode(out));
    }

    fn decode(bytes: &mut Decoder<'a>) -> Result<Self, Malformed> {
        (0..bytes.length()?).map(|_| T::decode(bytes)).collect()
    }
}

/// Encodes a plain enum as its place in a list of all its values.
macro_rules! listed {
    ($type:ty, $values:expr) => {
        impl Field<'_> for $type {
            fn encode(&self, out: &mut Encoder) {
                let index = $values.iter().position(|value| value == self);
                // All values are listed, which a test checks; no value would be encoded as one that is refused.
                out.u8(index.and_then(|index| u8::try_from(index).ok()).unwrap_or(u8::MAX));
            }

            fn decode(bytes: &mut Decoder<'_>) -> Result<Self, Malformed> {
                $values.get(usize::from(bytes.u8()?)).copied().ok_or(Malformed)
            }
        }
    };
}

const LIMITS: [Limit; 8] = [
    Limit::AddressSpace,
    Limit::CoreDump,
    Limit::CpuTime,
    Limit::Data,
    Limit::FileSize,
    Limit::LockedMemory,
    Limit::Processes,
    Limit::Stack,
];

listed!(Access, [Access::ReadOnly, Access::Writable, Access::Device]);
listed!(Layer, Layer::ALL);
listed!(Limit, LIMITS);

#[cfg(test)]
mod tests {
    use super::*;

    fn arrives<T: for<'a> Field<'a> + PartialEq + std::fmt::Debug + Copy>(value: T) {
        let mut out = Encoder::default();
        value.encode(&mut out);
        let bytes = out.finish();
        assert_eq!(T::decode(&mut Decoder::new(&bytes)), Ok(value));
    }

    #[test]
    fn every_listed_value_arrives() {
        for limit in LIMITS {
            arrives(limit);
        }
        for layer in Layer::ALL {
            arrives(layer);
        }
        for access in [Access::ReadOnly, Access::Writable, Access::Device] {
            arrives(access);
        }
        arrives(true);
        arrives(false);
        for text in ["0.0.0.0/0", "10.1.2.0/24", "255.255.255.255/32"] {
            let Ok(crate::Reach::Subnet(subnet)) = text.parse() else { panic!("{text} is a subnet") };
            arrives::<Subnet>(subnet);
        }
        assert_eq!(Subnet::decode(&mut Decoder::new(&[0, 0, 0, 1, 33])), Err(Malformed));
        assert_eq!(Limit::decode(&mut Decoder::new(&[u8::MAX])), Err(Malformed));
        assert_eq!(bool::decode(&mut Decoder::new(&[2])), Err(Malformed));
    }
}
