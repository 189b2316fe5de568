//! MurmurHash2, 64 bit, as libstdc++'s `std::hash<std::string>` computes it: what
//! `MURMUR_HASH_2` names in a ring's policy, in Kuma and Envoy alike.

const SEED: u64 = 0xc70f_6907;
const MULTIPLIER: u64 = 0xc6a4_a793_5bd1_e995;

/// Hashes `bytes` with libstdc++'s seed.
pub fn hash(bytes: &[u8]) -> u64 {
    let fold = |x: u64| x ^ (x >> 47);
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(MULTIPLIER);
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word).wrapping_mul(MULTIPLIER);
        hash = (hash ^ fold(word).wrapping_mul(MULTIPLIER)).wrapping_mul(MULTIPLIER);
    }
    if !tail.is_empty() {
        let mut word = [0; 8];
        word[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(MULTIPLIER);
    }
    hash = fold(hash).wrapping_mul(MULTIPLIER);
    fold(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by a C++ program with GCC 12's libstdc++.
    #[test]
    fn equals_libstdcxx() {
        for (text, expected) in [
            ("", 6_142_509_188_972_423_790),
            ("a", 4_993_892_634_952_068_459),
            ("12345678", 10_113_836_418_918_046_885),
            ("127.0.0.1:90_0", 5_656_417_760_668_758_976),
            ("10.0.0.1:8080_1023", 2_096_237_707_045_935_151),
            ("hello, world of rings", 7_749_018_191_078_902_459),
        ] {
            assert_eq!(hash(text.as_bytes()), expected, "{text:?}");
        }
    }
}
