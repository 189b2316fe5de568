//! Tags, shared: workloads of one service mostly have the same.

use std::{
    collections::{BTreeMap, HashSet, btree_map},
    fmt,
    hash::{Hash, Hasher},
    ops::{Deref, DerefMut},
    sync::Arc,
};

type Map = BTreeMap<String, String>;

static NONE: Map = Map::new();

/// Tag or label map. Sorted, so that output and hashes do not depend on the input's order. A copy
/// shares the map until one of the two is changed.
#[derive(Clone, Default)]
pub struct Tags(Option<Arc<Map>>);

impl Tags {
    /// No tags.
    pub const fn new() -> Self {
        Self(None)
    }
}

impl Deref for Tags {
    type Target = Map;

    fn deref(&self) -> &Map {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for Tags {
    fn deref_mut(&mut self) -> &mut Map {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl PartialEq for Tags {
    fn eq(&self, other: &Self) -> bool {
        let same = matches!((&self.0, &other.0), (Some(a), Some(b)) if Arc::ptr_eq(a, b));
        same || **self == **other
    }
}

impl Eq for Tags {}

impl PartialOrd for Tags {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Tags {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Tags {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl serde::Serialize for Tags {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl FromIterator<(String, String)> for Tags {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(tags: I) -> Self {
        let tags: Map = tags.into_iter().collect();
        Self((!tags.is_empty()).then(|| Arc::new(tags)))
    }
}

impl<const N: usize> From<[(String, String); N]> for Tags {
    fn from(tags: [(String, String); N]) -> Self {
        tags.into_iter().collect()
    }
}

impl IntoIterator for Tags {
    type Item = (String, String);
    type IntoIter = btree_map::IntoIter<String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.map(Arc::unwrap_or_clone).unwrap_or_default().into_iter()
    }
}

impl<'t> IntoIterator for &'t Tags {
    type Item = (&'t String, &'t String);
    type IntoIter = btree_map::Iter<'t, String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Tags that are in use, so that equal ones become the same.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Only looked up.
    tags: HashSet<Tags>,
    /// With so many of them those that nobody else has are thrown away.
    full: usize,
}

impl Shared {
    /// Lets `tags` be the ones that are in use already, where there are equal ones.
    pub(super) fn share(&mut self, tags: &mut Tags) {
        match self.tags.get(tags) {
            Some(known) => *tags = known.clone(),
            None => {
                if self.tags.len() >= self.full {
                    let in_use = |tags: &Tags| {
                        tags.0.as_ref().is_some_and(|tags| Arc::strong_count(tags) > 1)
                    };
                    self.tags.retain(in_use);
                    self.full = (2 * self.tags.len()).max(1024);
                }
                self.tags.insert(tags.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(version: &str) -> Tags {
        Tags::from([("version".to_owned(), version.to_owned())])
    }

    #[test]
    fn equal_tags_become_the_same_and_a_change_of_one_is_its_own() {
        let mut shared = Shared::default();
        let (mut one, mut other) = (tags("v1"), tags("v1"));
        shared.share(&mut one);
        shared.share(&mut other);
        assert!(std::ptr::eq(&*one, &*other));
        other.insert("zone".to_owned(), "east".to_owned());
        assert_eq!(one, tags("v1"));
        assert_ne!(one, other);
    }

    #[test]
    fn tags_that_nobody_has_any_more_are_thrown_away() {
        let mut shared = Shared::default();
        let mut kept = tags("kept");
        shared.share(&mut kept);
        for version in 0..10_000 {
            shared.share(&mut tags(&version.to_string()));
        }
        assert!(shared.tags.len() <= 1024, "{}", shared.tags.len());
        assert!(shared.tags.contains(&kept));
    }

    #[test]
    fn no_tags_are_equal_however_they_came_to_be_none() {
        let mut emptied = tags("v1");
        emptied.clear();
        assert_eq!(emptied, Tags::new());
        assert_eq!(emptied.cmp(&Tags::default()), std::cmp::Ordering::Equal);
    }
}
