//! "Did you mean": names close to one that is not known.

/// Which of `known` may have been meant by `name`, closest first, at most three. Two strings are
/// close if few letters are missing, added, replaced or swapped for their length, or if one is
/// the beginning of the other.
pub fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut close: Vec<(usize, &str)> = known
        .into_iter()
        .filter(|candidate| !candidate.is_empty() && *candidate != name)
        .filter_map(|candidate| {
            let distance = strsim::damerau_levenshtein(
                &name.to_ascii_lowercase(),
                &candidate.to_ascii_lowercase(),
            );
            let begins =
                !name.is_empty() && (candidate.starts_with(name) || name.starts_with(candidate));
            let letters = name.chars().count().max(candidate.chars().count());
            (begins || distance <= letters.div_ceil(4)).then_some((distance, candidate))
        })
        .collect();
    close.sort_unstable();
    close.dedup();
    close.into_iter().take(3).map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::suggest;

    #[test]
    fn a_typing_error_is_recognised() {
        assert_eq!(suggest("TraficRoute", ["Mesh", "TrafficRoute", "Dataplane"]), ["TrafficRoute"]);
        assert_eq!(suggest("rediss", ["redis", "web"]), ["redis"]);
    }

    #[test]
    fn a_beginning_is_recognised_and_the_closest_comes_first() {
        assert_eq!(suggest("web", ["web-10", "db", "web-1"]), ["web-1", "web-10"]);
    }

    #[test]
    fn strangers_are_not_offered() {
        assert!(suggest("payments", ["redis", "web", ""]).is_empty());
    }
}
