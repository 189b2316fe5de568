//! Texts into typed resources, again and again: what is as before is not read again.
//!
//! A text is read in parts, one for each document. What a part holds depends on nothing but its
//! own text, so a part that is as before holds what it held, wherever in its text it stands now; its
//! document keeps its number, and [`Documents`](super::Documents) tell where that is. What concerns several resources
//! (names, meshes) is looked at for those that changed, where that is enough, and else anew for all:
//! [`super::whole`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use super::{
    Edits, Note, Place, ReadOptions, Reading, SourceText, Stand, Texts,
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
    /// Numbers of documents that are there no more.
    unused: Vec<u32>,
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
    /// Without any Mesh: where each mesh is first named, and the index of the text that is in.
    pub(super) assumed: BTreeMap<String, (u32, Place)>,
    /// Names of resources that are not valid.
    pub(super) unfiled: BTreeSet<(&'static str, String, String)>,
}

/// A document in its text.
#[derive(Debug)]
pub(super) struct Part {
    /// Where it begins and ends, in bytes.
    begin: u32,
    end: u32,
    /// Its number. One that is no document has one too.
    document: u32,
    items: Items,
}

impl Part {
    /// Its text, in the text that it was read from.
    fn chunk<'t>(&self, text: &'t str) -> Option<&'t str> {
        text.get(self.begin as usize..self.end as usize)
    }

    /// Its items, each with its place.
    fn items(&self) -> impl Iterator<Item = (Place, &Item)> {
        let place = |item| Place { document: self.document, item };
        (0..).map(place).zip(self.items.as_slice())
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
    text: Arc<str>,
    chunks: Vec<Chunk>,
    /// Parts that are in it no more.
    gone: Vec<Part>,
}

/// What is to be a part: see there.
struct Chunk {
    begin: u32,
    end: u32,
    /// Its first line, from 1.
    line: u32,
    document: u32,
    /// What it held before, if it was there.
    known: Option<Items>,
}

/// What was there and is there no more, and what is new. A resource that changed is in both.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Indices of the texts that are not as before, sorted.
    pub(super) texts: Vec<u32>,
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
            self.place(texts).into_iter().map(|(index, before)| self.cut(index, &before)).collect();
        let mut ahead = Ahead::new(changed.iter().flat_map(turns).collect());
        for text in changed {
            changes.texts.push(text.index);
            self.text(text, &mut ahead, &mut changes);
        }
        let small = if self.begun { self.small(&changes) } else { None };
        let edits = small.unwrap_or_else(|| {
            self.whole();
            Edits::Whole
        });
        self.begun = true;
        self.reading.report.set_documents(&self.reading.set.documents);
        (self.reading.clone(), edits)
    }

    /// Gives each text its index. Returns the indices of those that are not as before, each with
    /// what it was before.
    fn place(&mut self, given: Texts) -> BTreeMap<u32, Arc<str>> {
        let texts = &mut self.reading.set.documents.texts;
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

    /// Cuts a text into its documents, and tells those that were in it `before`.
    fn cut(&mut self, index: u32, before: &str) -> Changed {
        let documents = &mut self.reading.set.documents;
        let text = documents.texts.get(index as usize).map(|text| Arc::clone(&text.text));
        let text = text.unwrap_or_else(|| "".into());
        let old = std::mem::take(&mut self.parts[index as usize]);
        let new = chunks(text_without_mark(&text));
        let old_chunks: Vec<&str> =
            old.iter().map(|part| part.chunk(before).unwrap_or_default()).collect();
        let new_chunks: Vec<&str> = new.iter().map(|(chunk, _)| *chunk).collect();
        let known = as_before(&old_chunks, &new_chunks);

        let mut old: Vec<Option<Part>> = old.into_iter().map(Some).collect();
        let known: Vec<Option<Part>> = known.into_iter().map(|at| old[at?].take()).collect();
        let gone: Vec<Part> = old.into_iter().flatten().collect();
        // In this order one that changed has the number that it had, if it is the only one.
        self.unused.extend(gone.iter().rev().map(|part| part.document));
        let chunk = |((chunk, line), known): ((&str, u32), Option<Part>)| {
            let begin = number(chunk.as_ptr() as usize - text.as_ptr() as usize);
            let end = begin + number(chunk.len());
            let (document, known) = match known {
                Some(part) => (part.document, Some(part.items)),
                None => (self.unused.pop().unwrap_or_else(|| documents.add()), None),
            };
            Chunk { begin, end, line, document, known }
        };
        let chunks = new.into_iter().zip(known).map(chunk).collect();
        Changed { index, text, chunks, gone }
    }

    /// Reads a text.
    fn text(&mut self, changed: Changed, ahead: &mut Ahead, changes: &mut Changes) {
        let Changed { index, text, chunks, gone } = changed;
        let cloned = |(at, item): (Place, &Item)| (at, item.clone());
        changes.gone.extend(gone.iter().flat_map(Part::items).map(cloned));
        let parts = &mut self.parts[index as usize];
        parts.reserve_exact(chunks.len());
        let mut number = 0;
        for Chunk { begin, end, line, document, known } in chunks {
            let is_new = known.is_none();
            let items = known.unwrap_or_else(|| {
                let found = ahead.take(&self.options).unwrap_or_else(|| {
                    let chunk = text.get(begin as usize..end as usize).unwrap_or_default();
                    ahead::read(chunk, document, &self.options)
                });
                Items::new(found, &mut self.shared)
            });
            let part = Part { begin, end, document, items };
            if is_new {
                changes.come.extend(part.items().map(cloned));
            }
            self.reading.set.documents.put(document, Stand { text: index, number, line });
            number += u32::from(!matches!(part.items, Items::Nothing));
            parts.push(part);
        }
    }

    /// Every item, in the order of the texts and documents.
    pub(super) fn items(&self) -> impl Iterator<Item = (Place, &Item)> {
        self.parts.iter().flatten().flat_map(Part::items)
    }

    /// The items of a text, in the order of its documents.
    pub(super) fn items_of(&self, text: u32) -> impl Iterator<Item = (Place, &Item)> {
        self.parts.get(text as usize).into_iter().flatten().flat_map(Part::items)
    }

    /// The text of the part that holds a document.
    fn chunk(&self, document: u32) -> Option<&str> {
        let documents = &self.reading.set.documents;
        let Stand { text, number, .. } = documents.stand(document)?;
        let parts = self.parts.get(text as usize)?;
        // Parts that are no document have the number of the next one that is.
        let before = |part: &Part| {
            documents.stand(part.document).is_some_and(|stand| stand.number <= number)
        };
        let part = parts.get(parts.partition_point(before).checked_sub(1)?)?;
        part.chunk(&documents.texts.get(text as usize)?.text)
    }
}

/// For each document of a text the place of the one that had its text before, each given once.
/// Most are as before, and stand in the order in which they stood.
fn as_before(old: &[&str], new: &[&str]) -> Vec<Option<usize>> {
    let same = |(old, new): &(&&str, &&str)| old == new;
    let head = old.iter().zip(new).take_while(same).count();
    let most = old.len().min(new.len()) - head;
    let tail = old.iter().rev().zip(new.iter().rev()).take(most).take_while(same).count();
    let mut others: HashMap<&str, VecDeque<usize>> = HashMap::new();
    for (at, chunk) in old.iter().enumerate().take(old.len() - tail).skip(head) {
        others.entry(chunk).or_default().push_back(at);
    }
    let known = |at: usize| match new.len() - at {
        _ if at < head => Some(at),
        left if left <= tail => Some(old.len() - left),
        _ => others.get_mut(new[at])?.pop_front(),
    };
    (0..new.len()).map(known).collect()
}

/// The documents of a text that are to be read.
fn turns(changed: &Changed) -> impl Iterator<Item = Turn> {
    let new = changed.chunks.iter().filter(|chunk| chunk.known.is_none());
    new.map(|&Chunk { begin, end, document, .. }| Turn {
        text: Arc::clone(&changed.text),
        begin,
        end,
        document,
    })
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
    documents: BTreeMap<u32, Vec<Found>>,
}

impl<'r> Again<'r> {
    pub(super) fn new(reader: &'r Reader) -> Self {
        Self { reader, documents: BTreeMap::new() }
    }

    /// The resource at a place. `None`: there is none.
    pub(super) fn resource(&mut self, at: Place) -> Option<&FoundResource> {
        let Self { reader, documents } = self;
        let items = documents.entry(at.document).or_insert_with(|| {
            let read = |chunk| ahead::read(chunk, at.document, &reader.options);
            reader.chunk(at.document).and_then(read).unwrap_or_default()
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
