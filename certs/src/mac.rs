//! Message authentication with a secret that both ends have: for receivers outside of the network,
//! which know no root and no certificate of ours.

use aws_lc_rs::hmac;

/// HMAC-SHA-256.
pub fn hmac_sha256(secret: &[u8], message: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut tag = [0; 32];
    tag.copy_from_slice(hmac::sign(&key, message).as_ref());
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_function_of_rfc_4231() {
        // Test case 2.
        let tag = hmac_sha256(b"Jefe", b"what do ya want for nothing?");
        let hex = data_encoding::HEXLOWER.encode(&tag);
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
