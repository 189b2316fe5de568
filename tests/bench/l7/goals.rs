//! Whether the goals are met.

use crate::measure::Measure;

/// Prints each goal, what was found, and whether that meets it.
pub(crate) fn print(measures: &[Measure]) {
    let find = |name: &str| measures.iter().find(|measure| measure.name == name);
    let ratio = |name: &str| find(name)?.ratio;
    let median = |name: &str| Some(find(name)?.median);
    let of = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs?);
    let goals = [
        ("kept.ours / kept.nginx", of(ratio("kept.ours"), ratio("kept.nginx")), 0.92),
        ("short.ours / short.nginx", of(ratio("short.ours"), ratio("short.nginx")), 0.92),
        ("kept.ours / kept.none (stretch)", ratio("kept.ours"), 1.95),
        ("kept.ours_1000 / kept.ours", of(ratio("kept.ours_1000"), ratio("kept.ours")), 1.05),
        ("memory.ours, MiB", median("memory.ours"), 15.0),
        ("idle.ours, MiB", median("idle.ours"), 150.0),
    ];
    for (what, found, most) in goals {
        match found {
            None => println!("goal: {what} ≤ {most}: not measured"),
            Some(found) => {
                let met = if found <= most { "met" } else { "not met" };
                println!("goal: {what} ≤ {most}: {found:.2}: {met}");
            }
        }
    }
}
