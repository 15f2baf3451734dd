use std::io;

use herd_pool::SessionId;

/// Makes the ID of a new session, which nobody can guess: 128 random bits in hexadecimal digits.
///
/// # Errors
/// If the system gives no random bytes.
pub fn random_session_id() -> io::Result<SessionId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    let digits = format!("{:032x}", u128::from_be_bytes(bytes));
    Ok(SessionId::new(digits).expect("32 digits make an ID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_another_one_of_32_digits() {
        let (one, other) = (random_session_id().unwrap(), random_session_id().unwrap());
        assert_ne!(one, other);
        assert!(one.as_str().len() == 32 && one.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()), "{one:?}");
    }
}
