//! `proxy`: how connections come to the proxy.

use std::{num::NonZeroU32, ops::RangeInclusive, time::Duration};

use balancer_ebpf::abi::SHARDS_MAX;

use super::{
    read::{Reader, number, what},
    values,
};
use crate::{
    policy::yaml::{Entry, Node},
    proxy::Limits,
};

/// `proxy.mark`: two bits of packets' marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyMark {
    /// The lower one: of packets that are handed to the proxy.
    pub handed: u32,
    /// The higher one: of packets that the proxy sends.
    pub own: u32,
}

impl Default for ProxyMark {
    fn default() -> Self {
        Self { handed: 0x0400_0000, own: 0x0800_0000 }
    }
}

impl ProxyMark {
    /// `0x0c000000`.
    ///
    /// # Errors
    /// Another form, or not two bits; the text says what to write.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("0x").unwrap_or_default();
        let mask = u32::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'));
        let Some(mask) = mask else {
            return Err(format!(
                "`{text}` is no mask of 32 bits; write it like `0x0c000000`: two bits of packets' \
                 marks that nobody else uses"
            ));
        };
        if mask.count_ones() != 2 {
            return Err(format!(
                "`{text}` has {} bits; write a mask of two, like `0x0c000000`: the lower one marks \
                 what is handed to the proxy, the higher one what it sends",
                mask.count_ones()
            ));
        }
        let handed = 1 << mask.trailing_zeros();
        Ok(Self { handed, own: mask ^ handed })
    }
}

/// `proxy.shards`: a number, or `auto`.
///
/// # Errors
/// It is neither, or more than the programs can tell apart.
pub(super) fn shards(text: &str) -> Result<Option<NonZeroU32>, String> {
    match text.parse::<NonZeroU32>() {
        Ok(shards) if shards.get() <= SHARDS_MAX => Ok(Some(shards)),
        _ if text == "auto" => Ok(None),
        _ => Err(format!(
            "`{text}` is no number of threads; write one from 1 to {SHARDS_MAX}, or `auto`: one for \
             each processor"
        )),
    }
}

/// `proxy.table`: a routing table that nobody else uses.
///
/// # Errors
/// It is none, or one of the kernel's own.
pub(super) fn table(text: &str) -> Result<u32, String> {
    match text.parse() {
        // RT_TABLE_UNSPEC, RT_TABLE_DEFAULT, RT_TABLE_MAIN, RT_TABLE_LOCAL (linux/rtnetlink.h).
        Ok(table @ (0 | 253..=255)) => {
            Err(format!("table {table} is the kernel's; write one that nobody uses, like `2977`"))
        }
        Ok(table) => Ok(table),
        Err(_) => Err(format!(
            "`{text}` is no routing table; write a number from 1 to {} that nobody uses",
            u32::MAX
        )),
    }
}

const LIMITS: &[&str] = &[
    "connections",
    "connections_of_one",
    "head_bytes",
    "head_fields",
    "head_within",
    "idle",
    "idle_at_end",
    "stalled",
    "streams",
    "connect",
    "real_idle",
    "real_kept",
];

impl Reader {
    /// `proxy.limits`.
    pub(super) fn proxy_limits(&mut self, node: &Node, path: &str, limits: &mut Limits) {
        for Entry { key, value, .. } in self.mapping(node, path, LIMITS) {
            let path = &format!("{path}.{key}");
            let any = 1..=u32::MAX;
            match key.as_str() {
                "connections" => self.count(value, path, &mut limits.connections, any),
                "connections_of_one" => {
                    self.count(value, path, &mut limits.connections_of_one, any)
                }
                // What the library reads at least at once, and more than anybody's head has.
                "head_bytes" => {
                    self.count(value, path, &mut limits.head_bytes, 8192..=16 * 1024 * 1024)
                }
                // Each has room while a head is read, whether it is there or not.
                "head_fields" => self.count(value, path, &mut limits.head_fields, 1..=1000),
                "head_within" => self.text(value, path, &mut limits.head_within, lasting),
                "idle" => self.text(value, path, &mut limits.idle, lasting),
                "idle_at_end" => self.text(value, path, &mut limits.idle_at_end, lasting),
                "stalled" => self.text(value, path, &mut limits.stalled, lasting),
                "streams" => self.count(value, path, &mut limits.streams, any),
                "connect" => self.text(value, path, &mut limits.connect, lasting),
                "real_idle" => self.text(value, path, &mut limits.real_idle, lasting),
                _ => self.count(value, path, &mut limits.real_kept, 0..=u32::MAX),
            }
        }
    }

    /// A whole number within bounds.
    fn count<T: TryFrom<u32>>(
        &mut self,
        node: &Node,
        path: &str,
        field: &mut T,
        within: RangeInclusive<u32>,
    ) {
        let count = number(node).filter(|number| within.contains(number));
        match count.and_then(|count| T::try_from(count).ok()) {
            Some(count) => *field = count,
            None => {
                let (least, most) = (within.start(), within.end());
                let what = what(node);
                self.wrong(
                    node.span,
                    path,
                    format!("{what} is no whole number from {least} to {most}"),
                );
            }
        }
    }
}

/// A time that the proxy's clock can tell.
fn lasting(text: &str) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    match values::duration(text)? {
        short if short < LEAST => Err(format!("`{text}` is too short; the least is `100ms`")),
        long if long > MOST => Err(format!("`{text}` is too long; the most is `365d`")),
        lasting => Ok(lasting),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_of_two_bits_is_two_marks() {
        let mark = |handed, own| Ok(ProxyMark { handed, own });
        assert_eq!(ProxyMark::parse("0x0c000000"), Ok(ProxyMark::default()));
        assert_eq!(ProxyMark::parse("0x80000001"), mark(1, 1 << 31));
        assert_eq!(ProxyMark::parse("0x3"), mark(1, 2));
    }

    #[test]
    fn another_mask_is_refused_with_what_to_write() {
        for (text, said) in [
            ("0", "`0` is no mask of 32 bits; write it like `0x0c000000`"),
            ("0x", "is no mask"),
            ("12", "is no mask"),
            ("0x1ffffffff", "is no mask"),
            ("0x+3", "is no mask"),
            ("0x0", "has 0 bits; write a mask of two"),
            ("0x400", "has 1 bits"),
            ("0x7", "has 3 bits"),
        ] {
            let message = ProxyMark::parse(text).expect_err(text);
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn threads_are_a_number_within_what_programs_tell_apart() {
        assert_eq!(shards("auto"), Ok(None));
        assert_eq!(shards("64"), Ok(NonZeroU32::new(64)));
        for text in ["0", "65", "-1", "many", ""] {
            assert!(shards(text).expect_err(text).contains("from 1 to 64, or `auto`"), "{text}");
        }
    }

    #[test]
    fn tables_of_the_kernel_are_refused() {
        assert_eq!(table("2977"), Ok(2977));
        for text in ["0", "253", "254", "255"] {
            assert!(table(text).expect_err(text).contains("is the kernel's"));
        }
        for text in ["main", "-1", "4294967296", ""] {
            assert!(table(text).expect_err(text).contains("is no routing table"));
        }
    }
}
