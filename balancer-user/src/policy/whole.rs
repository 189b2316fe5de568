//! What is between resources: names that two of them have, meshes that are not there.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Diagnostic, Edit, Edits, Note, Place, PolicySet, Report, ResourceReport,
    objects::{Identity, Lists, Object, has},
    reader::{Again, Between, Changes, Item, Reader},
    words::nearest,
};

/// More changes than this, and more than a quarter of all resources: then all are looked at.
const FEW: usize = 256;

impl Reader {
    /// Makes the reading anew from what the parts hold.
    pub(super) fn whole(&mut self) {
        let (lists, report, between) = {
            let mut named: Vec<(Identity<'_>, Place, &Item)> =
                self.items().filter_map(|(at, item)| Some((item.identity()?, at, item))).collect();
            // Those of one name stay in the order in which they stand.
            named.sort_by_key(|(identity, ..)| *identity);
            let mut again = Again::new(self);
            let mut more: BTreeMap<Place, Vec<Diagnostic>> = BTreeMap::new();
            for same in named.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
                repeated(same, &mut again, &mut more);
            }
            let mut between = Between {
                meshes: named
                    .iter()
                    .filter(|((kind, ..), ..)| *kind == "Mesh")
                    .map(|((.., name), ..)| (*name).to_owned())
                    .collect(),
                ..Between::default()
            };
            if between.meshes.is_empty() {
                let texts = (0..).zip(&self.parts).map(|(text, _)| text);
                between.assumed = self.first_named(BTreeMap::new(), texts);
            } else {
                let in_mesh = self.items().filter_map(|(at, item)| Some((at, item.mesh()?)));
                let unknown = in_mesh.filter(|(_, mesh)| !between.meshes.contains(*mesh));
                self::unknown(unknown, &between.meshes, &mut again, &mut more);
            }
            between.conflicts = !more.is_empty();
            let mut lists = Lists::default();
            for ((kind, scope, name), at, item) in &named {
                match item.object() {
                    Some(object) if !more.contains_key(at) => lists.push(object),
                    Some(_) => {}
                    None => {
                        let who = (*kind, (*scope).to_owned(), (*name).to_owned());
                        between.unfiled.insert(who);
                    }
                }
            }
            drop(named);
            let mut report = Report::default();
            for (at, item) in self.items() {
                add(&mut report, at, item, more.remove(&at), &mut again);
            }
            report.assume(assumed(&between.assumed, &mut again));
            (lists, report, between)
        };
        lists.put(&mut self.reading.set);
        self.reading.report = report;
        self.between = between;
    }

    /// Makes the reading from the last one, where the changes concern no other resource.
    pub(super) fn small(&mut self, changes: &Changes) -> Option<Edits> {
        let number = changes.gone.len() + changes.come.len();
        if self.between.conflicts || number > FEW && number * 4 > self.reading.report.len() {
            return None;
        }
        if !names_stay_unique(&self.reading.set, &self.between, changes) {
            return None;
        }
        let meshes = &self.between.meshes;
        let is_known = |mesh| meshes.is_empty() || meshes.contains(mesh);
        if !changes.come.iter().filter_map(|(_, item)| item.mesh()).all(is_known) {
            return None;
        }
        let told = self.assume(changes)?;

        let report = &mut self.reading.report;
        let owned = |(kind, scope, name): Identity<'_>| (kind, scope.to_owned(), name.to_owned());
        for (at, item) in &changes.gone {
            match item {
                Item::Quiet(_) | Item::Loud(_) => report.forget(*at),
                Item::Skipped(_) => report.unskip(*at),
            }
            if let (Some(who), None) = (item.identity(), item.object()) {
                self.between.unfiled.remove(&owned(who));
            }
        }
        let mut again = BTreeMap::new();
        for (at, item) in &changes.come {
            match item {
                Item::Quiet(_) => report.add_quiet(1),
                Item::Loud(found) => report.add(*at, found.report.clone()),
                Item::Skipped(note) => report.skip(*at, Note::clone(note)),
            }
            if let (Some(who), None) = (item.identity(), item.object()) {
                self.between.unfiled.insert(owned(who));
            }
        }
        if let Some(notes) = told {
            report.assume(notes);
        }
        let objects = |items: &'_ [(Place, Item)]| {
            items.iter().filter_map(|(_, item)| item.object().cloned()).collect::<Vec<Object>>()
        };
        let (gone, come) = (objects(&changes.gone), objects(&changes.come));
        for before in &gone {
            again.entry(before.key()).or_insert((None, None)).0 = Some(before);
        }
        for after in &come {
            again.entry(after.key()).or_insert((None, None)).1 = Some(after);
        }
        let mut edits = Some(Vec::new());
        for (before, after) in again.into_values() {
            match (before, after) {
                (_, Some(after)) => after.put(&mut self.reading.set),
                (Some(before), None) => before.take(&mut self.reading.set),
                (None, None) => {}
            }
            if before != after {
                let edit = Edit::of(before, after);
                edits = edits.zip(edit).map(|(mut edits, edit)| {
                    edits.push(edit);
                    edits
                });
            }
        }
        Some(edits.map_or(Edits::Whole, Edits::Some))
    }

    /// What is to be said of meshes that no document defines after these changes; nothing where
    /// that is what was said before. `None`: only looking at all resources tells.
    fn assume(&mut self, changes: &Changes) -> Option<Option<BTreeMap<Place, Note>>> {
        if !self.between.meshes.is_empty() {
            return Some(None);
        }
        let old = &self.between.assumed;
        let kept = old.iter().filter(|(_, (text, _))| changes.texts.binary_search(text).is_err());
        let kept = kept.map(|(mesh, at)| (mesh.clone(), *at)).collect();
        let assumed = self.first_named(kept, changes.texts.iter().copied());
        for (mesh, (text, _)) in old {
            // One that is not in the texts that changed may be first now.
            if assumed.get(mesh).is_none_or(|(first, _)| first > text) {
                return None;
            }
        }
        let come: BTreeSet<Place> = changes.come.iter().map(|(at, _)| *at).collect();
        if assumed == *old && !assumed.values().any(|(_, at)| come.contains(at)) {
            return Some(None);
        }
        let notes = self::assumed(&assumed, &mut Again::new(self));
        self.between.assumed = assumed;
        Some(Some(notes))
    }

    /// Where meshes are first named, if `first` has that of all texts but these.
    fn first_named(
        &self,
        mut first: BTreeMap<String, (u32, Place)>,
        texts: impl Iterator<Item = u32>,
    ) -> BTreeMap<String, (u32, Place)> {
        for text in texts {
            for (at, mesh) in self.items_of(text).filter_map(|(at, i)| Some((at, i.mesh()?))) {
                match first.get_mut(mesh) {
                    Some(other) if other.0 > text => *other = (text, at),
                    Some(_) => {}
                    None => drop(first.insert(mesh.to_owned(), (text, at))),
                }
            }
        }
        first
    }
}

/// Puts an item into the report, with what was found between it and others.
fn add(
    report: &mut Report,
    at: Place,
    item: &Item,
    more: Option<Vec<Diagnostic>>,
    again: &mut Again<'_>,
) {
    let own = match (item, &more) {
        (Item::Skipped(note), _) => return report.skip(at, Note::clone(note)),
        (Item::Quiet(_), None) => return report.add_quiet(1),
        (Item::Quiet(object), Some(_)) => match again.resource(at) {
            Some(found) => found.report.clone(),
            None => ResourceReport::of(object.meta()),
        },
        (Item::Loud(found), _) => found.report.clone(),
    };
    let mut resource = own;
    resource.violations.extend(more.into_iter().flatten());
    resource.violations.sort_by_key(|finding| finding.span);
    report.add(at, resource);
}

/// Resources of one identity: all but the first are refused.
fn repeated(
    same: &[(Identity<'_>, Place, &Item)],
    again: &mut Again<'_>,
    more: &mut BTreeMap<Place, Vec<Diagnostic>>,
) {
    let [(_, first, _), others @ ..] = same else { return };
    for (_, at, _) in others {
        // One at a time, as both may be of one document.
        let named = |again: &mut Again<'_>, at| again.resource(at)?.named.clone();
        if let (Some(first), Some(second)) = (named(again, *first), named(again, *at)) {
            more.entry(*at).or_default().push(second.second(&first));
        }
    }
}

/// Resources in meshes that are not there are refused.
fn unknown<'i>(
    in_mesh: impl Iterator<Item = (Place, &'i str)>,
    meshes: &BTreeSet<String>,
    again: &mut Again<'_>,
    more: &mut BTreeMap<Place, Vec<Diagnostic>>,
) {
    let known: Vec<&str> = meshes.iter().map(String::as_str).collect();
    for (at, mesh) in in_mesh {
        let message = format!("there is no mesh `{mesh}` among {}", known.join(", "));
        let span = again.resource(at).and_then(|found| Some(found.named.as_ref()?.mesh()?.1));
        let mut finding = Diagnostic::error("mesh", message).hint(match nearest(mesh, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add `type: Mesh` with `name: {mesh}`, or change the mesh"),
        });
        finding.span = span;
        more.entry(at).or_default().push(finding);
    }
}

/// A policy can be checked on its own: where no Mesh is among the inputs at all, every mesh exists
/// with its defaults.
fn assumed(first: &BTreeMap<String, (u32, Place)>, again: &mut Again<'_>) -> BTreeMap<Place, Note> {
    let note = |(mesh, (_, at)): (&String, &(u32, Place))| {
        let (_, span) = again.resource(*at)?.named.as_ref()?.mesh()?;
        let message = format!("no Mesh is given: `{mesh}` is taken to exist, with its defaults");
        Some((*at, Note { message, span }))
    };
    first.iter().filter_map(note).collect()
}

/// Whether no two resources have one name after these changes, and no Mesh is among them.
fn names_stay_unique(set: &PolicySet, between: &Between, changes: &Changes) -> bool {
    let identities = |items: &'_ [(Place, Item)]| {
        items.iter().filter_map(|(_, item)| item.identity().map(owned)).collect::<Vec<_>>()
    };
    fn owned((kind, scope, name): Identity<'_>) -> (&'static str, String, String) {
        (kind, scope.to_owned(), name.to_owned())
    }
    let gone: BTreeSet<_> = identities(&changes.gone).into_iter().collect();
    let come = identities(&changes.come);
    let unique: BTreeSet<_> = come.iter().collect();
    unique.len() == come.len()
        && gone.iter().chain(&come).all(|(kind, ..)| *kind != "Mesh")
        && come
            .iter()
            .filter(|who| !gone.contains(who))
            .all(|who| !has(set, (who.0, &who.1, &who.2)) && !between.unfiled.contains(who))
}
