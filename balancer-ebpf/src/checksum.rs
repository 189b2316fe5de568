//! The Internet checksum: one's complement sums, whole and by difference.
//!
//! A one's complement sum does not depend on byte order as long as all that is added has the
//! same one (RFC 1071, 2 B). So these functions take words as they lie in memory, and what they
//! return is stored as it is.

/// Folds a sum of 16- and 32-bit words to 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The sum of words, to be folded; room for 2³² of them.
#[inline(always)]
pub fn sum(words: &[u32]) -> u64 {
    let mut total = 0;
    for word in words {
        total += *word as u64;
    }
    total
}

/// The checksum after `old` became `new` (RFC 1624, equation 3: HC' = ~(~HC + ~m + m')).
#[inline(always)]
pub const fn replace(check: u16, old: u32, new: u32) -> u16 {
    !fold(!check as u64 + !old as u64 + new as u64)
}

/// [`replace`] of several words, as many new as old ones.
#[inline(always)]
pub fn replace_all(check: u16, old: &[[u8; 4]], new: &[[u8; 4]]) -> u16 {
    let mut total = u64::from(!check);
    let mut i = 0;
    while i < old.len() && i < new.len() {
        total += u64::from(!u32::from_ne_bytes(old[i])) + u64::from(u32::from_ne_bytes(new[i]));
        i += 1;
    }
    !fold(total)
}

/// The sum of TCP's pseudo-header (RFC 9293, 3.1) without the addresses, to be folded.
#[inline(always)]
pub const fn pseudo_header(tcp_len: u16) -> u64 {
    u16::from_ne_bytes([0, crate::abi::TCP]) as u64 + tcp_len.to_be() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    /// Straight from RFC 1071: 16-bit words in network order, carries added back one by one.
    fn recomputed(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            if sum > 0xffff {
                sum = (sum & 0xffff) + 1;
            }
        }
        !(sum as u16)
    }

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes.chunks(4).map(|b| u32::from_ne_bytes(b.try_into().expect("four bytes"))).collect()
    }

    proptest! {
        #[test]
        fn whole_sum_equals_recomputation(data: [[u8; 4]; 15]) {
            let bytes = data.concat();
            prop_assert_eq!((!fold(sum(&words(&bytes)))).to_ne_bytes(), recomputed(&bytes).to_be_bytes());
        }

        #[test]
        fn difference_equals_recomputation(data: [[u8; 4]; 5], new: [u8; 4], at in 0usize..5) {
            let mut bytes = data.concat();
            bytes.extend([0x45, 0, 0, 1]); // a header is never all zero
            let before = u16::from_ne_bytes(recomputed(&bytes).to_be_bytes());
            let old: [u8; 4] = bytes[4 * at..4 * at + 4].try_into().expect("four bytes");
            bytes[4 * at..4 * at + 4].copy_from_slice(&new);
            let after = replace(before, u32::from_ne_bytes(old), u32::from_ne_bytes(new));
            prop_assert_eq!(after.to_ne_bytes(), recomputed(&bytes).to_be_bytes());
        }
    }

    proptest! {
        #[test]
        fn many_words_are_replaced_as_one_after_the_other(
            check: u16, old: [[u8; 4]; 4], new: [[u8; 4]; 4],
        ) {
            let single = old.iter().zip(&new).fold(check, |check, (old, new)| {
                replace(check, u32::from_ne_bytes(*old), u32::from_ne_bytes(*new))
            });
            let all = replace_all(check, &old, &new);
            // 0 and 0xffff are the same number.
            prop_assert_eq!(all % 0xffff, single % 0xffff);
        }
    }

    #[test]
    fn every_checksum_survives_a_change_and_its_reverse() {
        for check in 0..=u16::MAX {
            let there = replace(check, 0x0102_0304, 0xffff_0000);
            let back = replace(there, 0xffff_0000, 0x0102_0304);
            // 0xffff and 0 are the same number; a sum of something non-zero never gives 0xffff.
            assert!(back == check || (check == 0xffff && back == 0), "{check:#06x}");
        }
    }

    #[test]
    fn pseudo_header_is_protocol_and_length() {
        assert_eq!(fold(pseudo_header(20)).to_ne_bytes(), 26u16.to_be_bytes());
    }
}
