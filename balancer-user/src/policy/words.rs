//! Words of documents in messages: what was meant, and no more of it than can be read.

use super::suggest::suggest;

/// The word that was probably meant, if one is near enough.
pub(super) fn nearest<'w>(written: &str, words: &[&'w str]) -> Option<&'w str> {
    // Comparing a word of megabytes with each candidate would take as many steps.
    if written.len() > 64 {
        return None;
    }
    let close = suggest(written, words.iter().copied()).into_iter().next();
    // `Prefix` for PathPrefix: a word of its own, and the end of another.
    let ends = || {
        let written = written.to_ascii_lowercase();
        let is_end =
            |word: &str| written.len() > 3 && word.to_ascii_lowercase().ends_with(&written);
        words.iter().copied().find(|word| is_end(word))
    };
    close.or_else(ends)
}

/// A message in which no word is long: values of megabytes are told from their beginning.
pub(super) fn with_short_words(message: String) -> String {
    const MOST: usize = 100;
    if message.len() <= MOST || message.split_whitespace().all(|word| word.len() <= MOST) {
        return message;
    }
    let short = |word: &str| {
        if word.chars().count() > MOST { shortened(word) } else { word.to_owned() }
    };
    let words = message.split(' ').map(short);
    words.collect::<Vec<_>>().join(" ")
}

/// The beginning of a text that may be long.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain(['…']).collect()
}
