//! What `fuzz/` reaches of the decoders, which are no public interface.

use crate::{
    plan::Plan,
    protocol::{Reply, Request},
};

/// Decodes the bytes as everything that is ever decoded. What can be decoded is encoded to the same bytes again.
pub fn decode(bytes: &[u8]) {
    let _ = Reply::decode(bytes);
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
    if let Ok(plan) = Plan::decode(bytes) {
        assert_eq!(plan.encode(), bytes);
    }
}
