use super::*;

fn name(backend: &str) -> Name {
    Name {
        mesh: "default".into(),
        service: "redis".into(),
        vip: "240.0.0.1:6379".into(),
        source_class: "everybody".into(),
        backend: backend.into(),
        tags: String::new(),
    }
}

type Names = Box<dyn FnOnce() -> Vec<Name>>;

/// Route 1 with counters from `first` on for these backends.
fn route(first: u32, backends: &'static [&'static str]) -> Run<Names> {
    let fingerprint = backends.iter().flat_map(|name| name.bytes()).map(u64::from).sum();
    Run {
        route: 1,
        run: CounterRun { first, count: backends.len() as u32, backends: fingerprint as u32 },
        fingerprint,
        names: Box::new(|| backends.iter().map(|backend| name(backend)).collect()),
    }
}

/// A ledger that hears of every set.
struct Told {
    roll: Roll,
    ledger: Ledger,
}

impl Told {
    fn new(limit: usize) -> Self {
        Self { roll: Roll::default(), ledger: Ledger::new(limit) }
    }

    fn live<N: FnOnce() -> Vec<Name>>(&mut self, routes: [Run<N>; 1], now: Instant) {
        let change = self.roll.call(routes);
        self.ledger.apply(change, now);
    }

    fn read(&mut self, values: &[Counter], now: Instant) {
        self.ledger.read(values, now);
    }
}

/// Counters by id that counted so many connections.
fn counted(connections: &[u64]) -> Vec<Counter> {
    let counter = |&connections| Counter { connections, ..Counter::default() };
    connections.iter().map(counter).collect()
}

fn totals(ledger: &Ledger) -> Vec<(&str, u64)> {
    ledger.totals().map(|(name, total)| (name.backend.as_str(), total.connections)).collect()
}

#[test]
fn total_goes_on_when_the_route_gets_other_counters() {
    let (mut told, now) = (Told::new(10), Instant::now());
    told.live([route(1, &["a", "b"])], now);
    told.read(&counted(&[0, 5, 7]), now);
    assert_eq!(totals(&told.ledger), [("a", 5), ("b", 7)]);
    told.live([route(3, &["a", "c"])], now);
    // Open connections still count on the old ones.
    told.read(&counted(&[0, 6, 8, 2, 4]), now);
    assert_eq!(totals(&told.ledger), [("a", 8), ("b", 8), ("c", 4)]);
    assert_eq!(told.ledger.end(), 5);
}

#[test]
fn what_counters_held_before_the_first_reading_is_counted() {
    let (mut told, now) = (Told::new(10), Instant::now());
    told.live([route(1, &["a"])], now);
    told.read(&counted(&[0, 41]), now);
    assert_eq!(totals(&told.ledger), [("a", 41)]);
    told.read(&counted(&[0, 42]), now);
    assert_eq!(totals(&told.ledger), [("a", 42)]);
}

#[test]
fn counter_that_was_zeroed_and_given_to_another_backend_takes_nothing_along() {
    let (mut told, now) = (Told::new(10), Instant::now());
    told.live([route(1, &["a"])], now);
    told.read(&counted(&[0, 5]), now);
    told.live([route(2, &["b"])], now);
    told.read(&counted(&[0, 6, 1]), now);
    // Zeroed before the set that names it again is live.
    told.read(&counted(&[0, 0, 1]), now);
    told.live([route(1, &["c"])], now);
    told.read(&counted(&[0, 9, 1]), now);
    assert_eq!(totals(&told.ledger), [("a", 6), ("b", 1), ("c", 9)]);
}

#[test]
fn renaming_moves_only_what_comes_after_it() {
    let (mut told, now) = (Told::new(10), Instant::now());
    told.live([route(1, &["a"])], now);
    told.read(&counted(&[0, 5]), now);
    let run = route(1, &["a"]).run;
    told.live([Run { route: 1, run, fingerprint: 0, names: || vec![name("z")] }], now);
    told.read(&counted(&[0, 7]), now);
    assert_eq!(totals(&told.ledger), [("a", 5), ("z", 2)]);
}

#[test]
fn beyond_the_limit_backends_are_counted_together() {
    let (mut told, now) = (Told::new(2), Instant::now());
    told.live([route(1, &["a", "b", "c", "d"])], now);
    told.read(&counted(&[0, 1, 2, 3, 4]), now);
    assert_eq!(totals(&told.ledger), [("a", 1), ("b", 2)]);
    assert_eq!(told.ledger.other().unwrap().connections, 7);
    assert_eq!(told.ledger.merged(), 2);
}

#[test]
fn retired_series_go_after_an_hour_and_never_take_the_sum_back() {
    let (mut told, now) = (Told::new(2), Instant::now());
    told.live([route(1, &["a", "b"])], now);
    told.read(&counted(&[0, 5, 7]), now);
    told.live([route(3, &["a"])], now);
    let almost = now + RETIRED_FOR - Duration::from_secs(1);
    told.read(&counted(&[0, 5, 8, 0]), almost);
    told.read(&counted(&[0, 5, 8, 0]), now + RETIRED_FOR);
    assert_eq!(totals(&told.ledger), [("a", 5), ("b", 8)], "it counted a second before");
    let late = almost + RETIRED_FOR;
    told.read(&counted(&[0, 5, 8, 0]), late);
    assert_eq!(totals(&told.ledger), [("a", 5)]);
    // A connection that slept all the while: nothing that `b` had counted is counted again.
    told.read(&counted(&[0, 5, 9, 0]), late);
    assert_eq!(told.ledger.other().unwrap().connections, 1);
    // There is room again.
    told.live([route(4, &["x"])], late);
    assert_eq!(told.ledger.merged(), 0);
}

#[test]
fn names_are_made_once_for_as_long_as_nothing_changes() {
    let (mut told, now) = (Told::new(10), Instant::now());
    told.live([route(1, &["a"])], now);
    let Run { route, run, fingerprint, .. } = route(1, &["a"]);
    let names = || -> Vec<Name> { panic!("asked for again") };
    told.live([Run { route, run, fingerprint, names }], now);
    assert_eq!(totals(&told.ledger), [("a", 0)]);
}

#[test]
fn next_agent_goes_on_with_counts_of_earlier_sets() {
    let (mut told, now) = (Told::new(10), Instant::now());
    told.live([route(1, &["a", "b"])], now);
    told.read(&counted(&[0, 5, 7]), now);
    told.live([route(3, &["a", "c"])], now);
    told.read(&counted(&[0, 6, 8, 2, 4]), now);
    // The counter of `b` was zeroed and is another's now.
    told.live([route(2, &["a"])], now);
    told.read(&counted(&[0, 6, 1, 2, 4]), now);
    let before = totals(&told.ledger).iter().map(|(name, n)| (name.to_string(), *n)).collect();
    let kept = crate::metrics::carried::write(&told.ledger, 1).unwrap();

    let mut next = Told::new(10);
    crate::metrics::carried::read(&kept, 1, &mut next.ledger).unwrap();
    next.live([route(2, &["a"])], now);
    next.read(&counted(&[0, 6, 1, 2, 4]), now);
    let after: Vec<(String, u64)> =
        totals(&next.ledger).iter().map(|(name, n)| (name.to_string(), *n)).collect();
    let before: Vec<(String, u64)> = before;
    assert_eq!(after, before);
    assert_eq!(after, [("a".into(), 9), ("b".into(), 8), ("c".into(), 4)]);

    let mut other = Ledger::new(10);
    crate::metrics::carried::read(&kept, 2, &mut other).unwrap();
    assert_eq!(totals(&other), [], "other maps");
}

#[test]
fn counters_zeroed_before_the_next_agent_reads_them_lose_nothing() {
    let (mut told, now) = (Told::new(10), Instant::now());
    told.live([route(1, &["a"])], now);
    told.live([route(2, &["a"])], now);
    told.read(&counted(&[0, 5, 7]), now);
    let kept = crate::metrics::carried::write(&told.ledger, 1).unwrap();

    let mut next = Told::new(10);
    crate::metrics::carried::read(&kept, 1, &mut next.ledger).unwrap();
    next.live([route(2, &["a"])], now);
    next.read(&counted(&[0, 0, 8]), now);
    assert_eq!(totals(&next.ledger), [("a", 13)]);
    // A connection of the earlier set counts on the counter that begins anew.
    next.read(&counted(&[0, 1, 8]), now);
    assert_eq!(totals(&next.ledger), [("a", 14)]);
}
