//! Texts into typed resources, again and again: what is as before is not read again.
//!
//! A text is read in parts, one for each document. What a part holds depends on nothing but its
//! own text and where it stands, so a part that is as before holds what it held. What concerns
//! several resources (names, meshes) is looked at for those that changed, where that is enough,
//! and else anew for all: [`super::whole`].

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{
    Edits, Note, Place, ReadOptions, Reading, SourceText, Texts,
    ahead::{self, Ahead, Turn},
    found::{Found, FoundResource, Named},
    objects::{Identity, Object, identity},
    tag_map::Shared,
    text::chunks,
};

/// Reads texts, and remembers what they held.
#[derive(Debug, Default)]
pub struct Reader {
    pub(super) options: ReadOptions,
    /// What was given last.
    pub(super) reading: Reading,
    /// The parts of each text.
    pub(super) parts: Vec<Vec<Part>>,
    /// Indices of the texts, in the order in which they were given last.
    order: Vec<u32>,
    /// Indices of texts that are there no more, the longest gone first.
    free: VecDeque<u32>,
    pub(super) between: Between,
    shared: Shared,
    begun: bool,
}

/// What is between resources, of what was given last.
#[derive(Debug, Default)]
pub(super) struct Between {
    /// Resources are in conflict, or name meshes that are not there: taking one of them away may
    /// make another one valid.
    pub(super) conflicts: bool,
    /// Names of the Meshes that are given, also of those that are not valid.
    pub(super) meshes: BTreeSet<String>,
    /// Without any Mesh: where each mesh is first named.
    pub(super) assumed: BTreeMap<String, Place>,
    /// Names of resources that are not valid.
    pub(super) unfiled: BTreeSet<(&'static str, String, String)>,
}

/// A document in its text.
#[derive(Debug)]
pub(super) struct Part {
    /// Where it begins and ends, in bytes.
    begin: u32,
    end: u32,
    /// Its first line, from 1.
    line: u32,
    /// How many documents come before it.
    document: u32,
    items: Items,
}

impl Part {
    /// Its text, in the text that it was read from.
    fn chunk<'t>(&self, text: &'t str) -> Option<&'t str> {
        text.get(self.begin as usize..self.end as usize)
    }
}

/// What a part holds. There are very many of these, and nearly all hold one resource.
#[derive(Debug)]
enum Items {
    /// No document.
    Nothing,
    One(Item),
    /// A `List`, or a document that holds nothing.
    #[expect(clippy::box_collection, reason = "keeps the others small")]
    Many(Box<Vec<Item>>),
}

impl Items {
    /// `None`: there is no document.
    fn new(found: Option<Vec<Found>>, shared: &mut Shared) -> Self {
        let Some(found) = found else { return Self::Nothing };
        let mut items: Vec<Item> = found.into_iter().map(|f| Item::new(f, shared)).collect();
        match items.len() {
            1 => items.pop().map_or(Self::Nothing, Self::One),
            _ => Self::Many(Box::new(items)),
        }
    }

    fn as_slice(&self) -> &[Item] {
        match self {
            Self::Nothing => &[],
            Self::One(item) => std::slice::from_ref(item),
            Self::Many(items) => items,
        }
    }
}

/// A document, or an item of one.
#[derive(Clone, Debug)]
pub(super) enum Item {
    /// A resource in which nothing was found. Whatever else there is to know of it, such as where
    /// its name stands, comes from reading it again: see [`Again`].
    Quiet(Object),
    /// A resource with findings.
    Loud(Arc<FoundResource>),
    /// It is not of ours.
    Skipped(Arc<Note>),
}

impl Item {
    fn new(found: Found, shared: &mut Shared) -> Self {
        match found {
            Found::Skipped(note) => Self::Skipped(Arc::new(note)),
            Found::Resource(resource) => match *resource {
                FoundResource { report, object: Some(mut object), .. }
                    if report.violations.is_empty() =>
                {
                    object.share(shared);
                    Self::Quiet(object)
                }
                resource => Self::Loud(Arc::new(resource)),
            },
        }
    }

    pub(super) fn object(&self) -> Option<&Object> {
        match self {
            Self::Quiet(object) => Some(object),
            Self::Loud(resource) => resource.object.as_ref(),
            Self::Skipped(_) => None,
        }
    }

    pub(super) fn identity(&self) -> Option<Identity<'_>> {
        match self {
            Self::Quiet(object) => Some(identity(object.meta())),
            Self::Loud(resource) => resource.named.as_ref().map(Named::identity),
            Self::Skipped(_) => None,
        }
    }

    /// The mesh that it is in.
    pub(super) fn mesh(&self) -> Option<&str> {
        match self {
            Self::Quiet(object) => {
                let meta = object.meta();
                (!meta.mesh.is_empty() && meta.kind != "Mesh").then_some(&*meta.mesh)
            }
            Self::Loud(resource) => Some(resource.named.as_ref()?.mesh()?.0),
            Self::Skipped(_) => None,
        }
    }
}

/// A text that is not as before.
struct Changed {
    index: u32,
    before: Arc<str>,
    text: Arc<str>,
    /// Its documents: where each begins and ends, in bytes, and its first line, from 1.
    chunks: Vec<(u32, u32, u32)>,
}

/// What was there and is there no more, and what is new. A resource that changed is in both.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) gone: Vec<(Place, Item)>,
    pub(super) come: Vec<(Place, Item)>,
}

impl Reader {
    /// A reader that has read nothing.
    pub fn new(options: ReadOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Reads every document of every text and validates it, as [`super::read`] does, and says what
    /// differs from what was read last. A text keeps its index as long as one of its name is
    /// given; the index of one that is gone goes to another one, and until then to an empty text
    /// without a name.
    pub fn read(&mut self, texts: Texts) -> (Reading, Edits) {
        let mut changes = Changes::default();
        let changed: Vec<Changed> =
            self.place(texts).into_iter().map(|(index, before)| self.cut(index, before)).collect();
        let mut ahead = Ahead::new(changed.iter().flat_map(|text| self.turns(text)).collect());
        for text in changed {
            self.text(text, &mut ahead, &mut changes);
        }
        let small = if self.begun { self.small(&changes) } else { None };
        let edits = small.unwrap_or_else(|| {
            self.whole();
            Edits::Whole
        });
        self.begun = true;
        (self.reading.clone(), edits)
    }

    /// Gives each text its index. Returns the indices of those that are not as before, each with
    /// what it was before.
    fn place(&mut self, given: Texts) -> BTreeMap<u32, Arc<str>> {
        let texts = &mut self.reading.set.texts;
        let mut changed = BTreeMap::new();
        let same_name = |index: &u32, text: &SourceText| {
            texts.get(*index as usize).is_some_and(|before| before.name == text.name)
        };
        let pairs = self.order.iter().zip(&given);
        let head = pairs.take_while(|(index, text)| same_name(index, text)).count();
        let rest = self.order.len().min(given.len()) - head;
        let pairs = self.order.iter().rev().zip(given.iter().rev());
        let tail = pairs.take(rest).take_while(|(index, text)| same_name(index, text)).count();
        let (old, new) = (head..self.order.len() - tail, head..given.len() - tail);

        let mut by_name: BTreeMap<String, VecDeque<u32>> = BTreeMap::new();
        for index in &self.order[old.clone()] {
            if let Some(text) = texts.get(*index as usize) {
                by_name.entry(text.name.clone()).or_default().push_back(*index);
            }
        }
        let known: Vec<Option<u32>> = given
            .iter()
            .skip(new.start)
            .take(new.len())
            .map(|text| by_name.get_mut(&text.name).and_then(VecDeque::pop_front))
            .collect();
        let gone: Vec<u32> = by_name.into_values().flatten().collect();
        for index in &gone {
            let nothing = SourceText { name: String::new(), text: "".into() };
            changed.insert(*index, texts.set(*index as usize, nothing).text);
        }
        let placed: Vec<u32> = known
            .into_iter()
            .map(|known| {
                known.or_else(|| self.free.pop_front()).unwrap_or_else(|| {
                    texts.push_back(SourceText { name: String::new(), text: "".into() });
                    self.parts.push(Vec::new());
                    u32::try_from(texts.len() - 1).unwrap_or(u32::MAX)
                })
            })
            .collect();
        // Not before: a file that was renamed has other places, which findings name.
        self.free.extend(gone);
        self.order.splice(old, placed);
        for (index, text) in self.order.iter().zip(&given) {
            let Some(before) = texts.get(*index as usize) else { continue };
            if Arc::ptr_eq(&before.text, &text.text) || before.text == text.text {
                if before.name != text.name {
                    texts.set(*index as usize, text.clone());
                }
                continue;
            }
            let before = texts.set(*index as usize, text.clone()).text;
            changed.insert(*index, before);
        }
        changed
    }

    /// Cuts a text into its documents.
    fn cut(&self, index: u32, before: Arc<str>) -> Changed {
        let text = self.reading.set.texts.get(index as usize).map(|text| Arc::clone(&text.text));
        let text = text.unwrap_or_else(|| "".into());
        let cut = |(chunk, line): (&str, u32)| {
            let begin = number(chunk.as_ptr() as usize - text.as_ptr() as usize);
            (begin, begin + number(chunk.len()), line)
        };
        let chunks = chunks(text_without_mark(&text)).into_iter().map(cut).collect();
        Changed { index, before, text, chunks }
    }

    /// Its documents that are not as before, so far as that can be told yet.
    fn turns<'c>(&'c self, changed: &'c Changed) -> impl Iterator<Item = Turn> + 'c {
        let parts = self.parts.get(changed.index as usize).map_or(&[][..], Vec::as_slice);
        let text = changed.index;
        changed.chunks.iter().enumerate().filter_map(move |(at, &(begin, end, line))| {
            let chunk = changed.text.get(begin as usize..end as usize);
            let same = |part: &&Part| part.line == line && part.chunk(&changed.before) == chunk;
            parts.get(at).filter(same).is_none().then(|| {
                let (source, document) = (Arc::clone(&changed.text), number(at));
                Turn { source, text, begin, end, line, document }
            })
        })
    }

    /// Reads a text.
    fn text(&mut self, changed: Changed, ahead: &mut Ahead, changes: &mut Changes) {
        let Changed { index, before, text, chunks } = changed;
        let parts = &mut self.parts[index as usize];
        let mut old: Vec<Option<Part>> = std::mem::take(parts).into_iter().map(Some).collect();
        let mut document = 0;
        for (at, (begin, end, line)) in chunks.into_iter().enumerate() {
            let chunk = text.get(begin as usize..end as usize).unwrap_or_default();
            let known = old.get_mut(at).and_then(|part| {
                part.take_if(|part| {
                    (part.line, part.document) == (line, document)
                        && part.chunk(&before) == Some(chunk)
                })
            });
            let part = known.map(|part| Part { begin, end, ..part }).unwrap_or_else(|| {
                let (at, options) = ((index, document), &self.options);
                let found = ahead.take(at, begin, options);
                let found = found.unwrap_or_else(|| ahead::read(chunk, line, at, options));
                let items = Items::new(found, &mut self.shared);
                let place = |item| Place { text: index, document, item };
                let come = (0..).map(place).zip(items.as_slice().iter().cloned());
                changes.come.extend(come);
                Part { begin, end, line, document, items }
            });
            document += u32::from(!matches!(part.items, Items::Nothing));
            parts.push(part);
        }
        for part in old.into_iter().flatten() {
            let place = |item| Place { text: index, document: part.document, item };
            changes.gone.extend((0..).map(place).zip(part.items.as_slice().iter().cloned()));
        }
        parts.shrink_to_fit();
    }

    /// Every item, in the order of the texts and documents.
    pub(super) fn items(&self) -> impl Iterator<Item = (Place, &Item)> {
        (0..).zip(&self.parts).flat_map(|(text, parts)| {
            parts.iter().flat_map(move |part| {
                let place = move |item| Place { text, document: part.document, item };
                (0..).map(place).zip(part.items.as_slice())
            })
        })
    }

    /// The text of the part that holds the document of a place, and the part.
    fn part(&self, at: Place) -> Option<(&str, &Part)> {
        let parts = self.parts.get(at.text as usize)?;
        // Parts that are no document have the number of the next one that is.
        let last = parts.partition_point(|part| part.document <= at.document).checked_sub(1)?;
        let part = parts.get(last).filter(|part| part.document == at.document)?;
        let text = &self.reading.set.texts.get(at.text as usize)?.text;
        Some((part.chunk(text)?, part))
    }
}

/// A byte order mark is no content.
fn text_without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Resources read again, for what is not kept of those in which nothing was found.
pub(super) struct Again<'r> {
    reader: &'r Reader,
    /// Documents that were: one may hold many resources.
    documents: BTreeMap<(u32, u32), Vec<Found>>,
}

impl<'r> Again<'r> {
    pub(super) fn new(reader: &'r Reader) -> Self {
        Self { reader, documents: BTreeMap::new() }
    }

    /// The resource at a place. `None`: there is none.
    pub(super) fn resource(&mut self, at: Place) -> Option<&FoundResource> {
        let Self { reader, documents } = self;
        let items = documents.entry((at.text, at.document)).or_insert_with(|| {
            let read = |(chunk, part): (&str, &Part)| {
                ahead::read(chunk, part.line, (at.text, at.document), &reader.options)
            };
            reader.part(at).and_then(read).unwrap_or_default()
        });
        match items.get(at.item as usize)? {
            Found::Resource(resource) => Some(resource),
            Found::Skipped(_) => None,
        }
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
