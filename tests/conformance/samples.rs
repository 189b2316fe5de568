//! Texts that a pattern takes, made from the pattern.

use std::{iter::Peekable, str::Chars};

use balancer_user::http::Pattern;

/// At least one text that the pattern takes: with everything that may be left out left out, and
/// with it.
pub(crate) fn taken_by(pattern: &Pattern) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    for (repeats, alternative) in [(0, 0), (1, 0), (2, 1), (1, 1)] {
        let mut writer = Writer { rest: pattern.text().chars().peekable(), repeats, alternative };
        let text = writer.alternatives();
        if pattern.matches(text.as_bytes()) && !found.contains(&text) {
            found.push(text);
        }
    }
    if found.is_empty() {
        return Err(format!("no text found that `{}` takes", pattern.text()));
    }
    Ok(found)
}

/// Reads a pattern and writes a text of it. What it does not understand it copies; the caller
/// asks the pattern whether the text is right.
struct Writer<'p> {
    rest: Peekable<Chars<'p>>,
    /// How often something is repeated that need not be there.
    repeats: usize,
    /// Which of several alternatives is taken, where there are as many.
    alternative: usize,
}

impl Writer<'_> {
    fn alternatives(&mut self) -> String {
        let mut all = vec![self.sequence()];
        while self.rest.next_if_eq(&'|').is_some() {
            all.push(self.sequence());
        }
        let at = self.alternative.min(all.len() - 1);
        all.swap_remove(at)
    }

    fn sequence(&mut self) -> String {
        let mut text = String::new();
        while let Some(next) = self.rest.next_if(|next| !"|)".contains(*next)) {
            let one = match next {
                '^' | '$' => continue,
                '.' => "a".to_owned(),
                '(' => {
                    if self.rest.next_if_eq(&'?').is_some() {
                        // `(?:`, `(?P<name>`, `(?i)`.
                        while self.rest.next_if(|c| !":>)".contains(*c)).is_some() {}
                        self.rest.next_if(|c| *c != ')');
                    }
                    let inner = self.alternatives();
                    self.rest.next();
                    inner
                }
                '[' => self.class(),
                '\\' => self.escaped(),
                other => other.to_string(),
            };
            let times = self.times();
            text.push_str(&one.repeat(times));
        }
        text
    }

    fn escaped(&mut self) -> String {
        match self.rest.next() {
            Some('d') => "7".to_owned(),
            Some('w' | 'S' | 'D') => "a".to_owned(),
            Some('s') => " ".to_owned(),
            Some('b' | 'A' | 'z') | None => String::new(),
            Some(other) => other.to_string(),
        }
    }

    /// One character of a class.
    fn class(&mut self) -> String {
        let negated = self.rest.next_if_eq(&'^').is_some();
        let mut all = String::new();
        while let Some(next) = self.rest.next_if(|next| *next != ']' || all.is_empty()) {
            match next {
                '\\' => all.push_str(&self.escaped()),
                other => all.push(other),
            }
        }
        self.rest.next();
        let other = ('a'..='z').chain('0'..='9').find(|c| !all.contains(*c));
        let one = if negated { other } else { all.chars().next() };
        one.map(String::from).unwrap_or_default()
    }

    /// How often what came last is written.
    fn times(&mut self) -> usize {
        let times = match self.rest.next_if(|next| "*+?{".contains(*next)) {
            Some('*') => self.repeats,
            Some('+') => self.repeats.max(1),
            Some('?') => self.repeats.min(1),
            Some(_) => {
                let mut bounds = String::new();
                while let Some(next) = self.rest.next_if(|next| *next != '}') {
                    bounds.push(next);
                }
                self.rest.next();
                bounds.split(',').next().and_then(|least| least.parse().ok()).unwrap_or(1)
            }
            None => 1,
        };
        // `+?` and its like are as long as they need to be.
        self.rest.next_if_eq(&'?');
        times
    }
}
