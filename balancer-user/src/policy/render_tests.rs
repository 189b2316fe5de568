use super::*;
use crate::policy::testing::{LENIENT, reading, route};

#[test]
fn a_finding_shows_its_line_underlined_its_field_and_what_to_do() {
    let body = route(
        "\n  split:\n  - {weight: 1, destination: {kuma.io/service: a}}\n  - destination: {kuma.io/service: b}",
    );
    let reading = reading(&body, &LENIENT);
    let shown = report(&reading.report, false);
    let expected = "\
error: needs to be defined
 --> a.yaml:9:5
  |
9 |   - destination: {kuma.io/service: b}
  |     ^^^^^^^^^^^
  = field: conf.split[1].weight
  = help: every entry needs its weight, e.g. `weight: 10`; 0 is one too

note: no Mesh is given: `default` is taken to exist, with its defaults
 --> a.yaml:3:7
  |
3 | mesh: default
  |       ^^^^^^^
";
    assert_eq!(shown, expected);
}

#[test]
fn a_second_place_is_shown_with_what_stands_there() {
    let body = "type: Mesh\nname: a\nname: b\n";
    let reading = reading(body, &LENIENT);
    let shown = report(&reading.report, false);
    let expected = "\
error: the key `name` stands twice in one mapping
 --> a.yaml:3:1
  |
3 | name: b
  | ^^^^
 --> a.yaml:2:1
  |
2 | name: a
  | ---- first here
  = field: name
  = help: remove one of them
";
    assert_eq!(shown, expected);
}

#[test]
fn colour_is_only_for_those_who_ask() {
    let reading = reading("type: Msh\nname: a\n", &LENIENT);
    let plain = report(&reading.report, false);
    let coloured = report(&reading.report, true);
    assert!(!plain.contains('\u{1b}'));
    assert!(coloured.contains("\u{1b}[1;31merror\u{1b}[0m"), "{coloured}");
    assert!(plain.contains("help: did you mean `Mesh`?"), "{plain}");
}

#[test]
fn long_lines_and_control_characters_are_shown_in_one_piece() {
    let long = format!("type: Mesh\nname: a\n'{}\u{7}': &x 1\n", "k".repeat(500));
    let reading = reading(&long, &LENIENT);
    let shown = report(&reading.report, false);
    assert!(!shown.contains('\u{7}'));
    let widest = shown.lines().filter(|l| l.contains(" | ")).map(|l| l.chars().count()).max();
    assert!(widest.unwrap() <= WIDTH + 8, "{shown}");
}

#[test]
fn a_finding_far_to_the_right_is_in_the_window() {
    let body = format!(
        "type: Mesh\nname: a\nrouting: {{{}localityAwareLoadBalancing: maybe}}\n",
        " ".repeat(400)
    );
    let reading = reading(&body, &LENIENT);
    let shown = report(&reading.report, false);
    let lines: Vec<&str> = shown.lines().collect();
    let source = lines
        .iter()
        .position(|line| line.contains(" | ") && line.contains("maybe"))
        .expect("the line is shown");
    let column = lines[source + 1].find('^').expect("it is underlined");
    let of_value = lines[source].chars().collect::<String>();
    let byte = of_value.char_indices().nth(column).map(|(byte, _)| byte).unwrap();
    assert!(of_value[byte..].starts_with("maybe"), "{shown}");
}
