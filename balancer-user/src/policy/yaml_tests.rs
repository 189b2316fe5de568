use super::*;

fn one(text: &str) -> Document {
    let mut documents = documents(text, 0);
    assert_eq!(documents.len(), 1, "{documents:#?}");
    documents.remove(0)
}

fn at<'n>(root: &'n Node, path: &[&str]) -> &'n Node {
    path.iter().fold(root, |node, key| match &node.value {
        Value::Sequence(items) => &items[key.parse::<usize>().unwrap()],
        _ => &node.entry(key).unwrap_or_else(|| panic!("no {key}")).value,
    })
}

fn place(span: Span) -> (u32, u32, u32) {
    (span.line, span.column, span.len)
}

/// The one problem of a text that cannot be read.
fn problem(text: &str) -> Diagnostic {
    let document = one(text);
    assert_eq!(document.root, None, "{document:#?}");
    assert_eq!(document.problems.len(), 1, "{document:#?}");
    document.problems[0].clone()
}

#[test]
fn every_value_knows_its_line_column_and_length() {
    let text = "a: b\nc:\n  é: [1, {x: yy}]\n  e:\n  f: \"gg\"\n  h:\n  - i: 1\n";
    let document = one(text);
    let root = document.root.unwrap();
    assert_eq!(place(root.span), (1, 1, 1));
    assert_eq!(place(at(&root, &["a"]).span), (1, 4, 1));
    assert_eq!(place(at(&root, &["c"]).span), (3, 3, 1), "a block stands at its first key");
    assert_eq!(place(at(&root, &["c", "é"]).span), (3, 6, 12), "columns count characters");
    assert_eq!(place(at(&root, &["c", "é", "1", "x"]).span), (3, 14, 2));
    assert_eq!(place(at(&root, &["c", "e"]).span), (4, 3, 1), "an absent value stands at its key");
    assert_eq!(place(at(&root, &["c", "f"]).span), (5, 6, 4));
    assert_eq!(place(at(&root, &["c", "h", "0"]).span), (7, 5, 1));
}

#[test]
fn positions_are_the_same_with_crlf_and_after_a_byte_order_mark() {
    for text in ["a: b\nc: d\n", "a: b\r\nc: d\r\n", "a: b\rc: d\r", "\u{feff}a: b\nc: d\n"] {
        let root = one(text).root.unwrap();
        assert_eq!(place(at(&root, &["a"]).span), (1, 4, 1), "{text:?}");
        assert_eq!(place(at(&root, &["c"]).span), (2, 4, 1), "{text:?}");
    }
}

#[test]
fn documents_are_split_at_their_markers_and_empty_ones_left_out() {
    let text = "# a comment\n---\n---\na: 1\n--- # another\nb: 2\n...\n\n%YAML 1.2\n---\nc: 3\n---\n~\n---";
    let documents = documents(text, 7);
    let lines: Vec<u32> = documents.iter().map(|document| document.span.line).collect();
    assert_eq!(lines, [4, 6, 11]);
    assert!(documents.iter().all(|document| document.span.document == 7));
    assert!(documents.iter().all(|document| document.problems.is_empty()));
}

#[test]
fn a_marker_inside_a_word_or_a_line_splits_nothing() {
    assert_eq!(documents("a: ---\nb: x---\n---c: 1\n", 0).len(), 1);
    assert_eq!(documents("a: |\n  ---\n  b\n", 0).len(), 1);
}

#[test]
fn texts_without_content_have_no_documents() {
    for text in ["", "\n\n", "# nothing\n", "---", "\u{feff}", "null\n", "...\n"] {
        assert_eq!(documents(text, 0), [], "{text:?}");
    }
}

#[test]
fn a_broken_document_leaves_the_others_readable() {
    let documents = documents("a: 1\n---\nb: [1\n---\nc: 3\n---\nd: 'x\n---\ne: 5\n", 0);
    let readable: Vec<bool> = documents.iter().map(|d| d.root.is_some()).collect();
    assert_eq!(readable, [true, false, true, false, true]);
    assert_eq!(place(documents[4].root.as_ref().unwrap().span), (9, 1, 1));
    assert_eq!(documents[1].problems.len(), 1);
}

#[test]
fn json_is_yaml() {
    let root = one("{\n\t\"a\": \"b\",\n\t\"c\": [1, {\"d\": null}]\n}\n").root.unwrap();
    assert_eq!(place(at(&root, &["a"]).span), (2, 7, 3));
    assert!(at(&root, &["c", "1", "d"]).is_null());
    let Value::Scalar(b) = &at(&root, &["a"]).value else { panic!("no scalar") };
    assert_eq!((b.text.as_str(), b.plain), ("b", false));
}

#[test]
fn only_plain_scalars_are_null_or_numbers() {
    let root = one("a: null\nb: 'null'\nc: !!str 1.0\nd: |\n  ~\ne: ~\nf:\n").root.unwrap();
    let nulls: Vec<bool> =
        ["a", "b", "c", "d", "e", "f"].iter().map(|key| at(&root, &[key]).is_null()).collect();
    assert_eq!(nulls, [true, false, false, false, true, true]);
    assert!(matches!(&at(&root, &["c"]).value, Value::Scalar(Scalar { plain: false, .. })));
}

#[test]
fn duplicate_keys_are_errors_with_both_places_and_their_path() {
    let document = one("conf:\n  split:\n  - weight: 1\n    weight: 2\n    x/y: {a: 1, a: 2}\n");
    let found: Vec<_> = document
        .problems
        .iter()
        .map(|p| (p.field.as_str(), place(p.span.unwrap()), place(p.related.clone().unwrap().0)))
        .collect();
    assert_eq!(
        found,
        [
            ("conf.split[0].weight", (4, 5, 6), (3, 5, 6)),
            ("conf.split[0][\"x/y\"].a", (5, 17, 1), (5, 11, 1)),
        ]
    );
    let root = document.root.unwrap();
    let Value::Scalar(weight) = &at(&root, &["conf", "split", "0", "weight"]).value else {
        panic!("no scalar")
    };
    assert_eq!(weight.text, "1", "the first one counts, so that the rest is still checked");
}

#[test]
fn duplicates_are_found_among_many_keys() {
    let mut text: String = (0..1000).map(|n| format!("k{n}: {n}\n")).collect();
    text.push_str("k3: again\nk16: again\nk17: again\nk999: again\n");
    let document = one(&text);
    let fields: Vec<&str> = document.problems.iter().map(|p| p.field.as_str()).collect();
    assert_eq!(fields, ["k3", "k16", "k17", "k999"]);
}

#[test]
fn a_document_of_nothing_but_duplicates_ends_at_a_bound() {
    let document = one(&format!("{{{}}}\n", "a, ".repeat(100_000)));
    assert_eq!(document.problems.len(), PROBLEMS_MAX + 1);
    assert!(document.problems.last().unwrap().message.contains("more than 1000 faults"));
    assert_eq!(document.root, None);
}

#[test]
fn aliases_stand_for_their_anchor() {
    let root = one("a: &x {b: 1}\nc: *x\n").root.unwrap();
    assert_eq!(at(&root, &["a"]).value, at(&root, &["c"]).value);
    assert_eq!(place(at(&root, &["c"]).span), (2, 4, 2));
}

#[test]
fn aliases_that_multiply_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert!(problem(&text).message.contains("aliases expand"), "{text}");
    let own = "a: &x [*x]\n";
    assert!(problem(own).message.contains("inside the value"));
    assert!(problem("a: *nobody\n").message.contains("unknown anchor"));
}

#[test]
fn nesting_is_bounded_also_through_aliases() {
    let deep = |levels: usize| format!("a: {}{}\n", "[".repeat(levels), "]".repeat(levels));
    assert!(one(&deep(DEPTH_MAX - 1)).problems.is_empty());
    assert!(problem(&deep(DEPTH_MAX)).message.contains("nested deeper"));
    assert!(problem(&deep(100_000)).message.contains("nested deeper"));
    assert!(problem(&"- ".repeat(100_000)).message.contains("nested deeper"));
    let levels = DEPTH_MAX / 2 + 1;
    let mut text = format!("a: &x {}{}\n", "[".repeat(levels), "]".repeat(levels));
    text.push_str(&format!("b: {}*x{}\n", "[".repeat(levels), "]".repeat(levels)));
    assert!(problem(&text).message.contains("nested deeper"));
}

#[test]
fn a_tab_in_the_indentation_is_named_where_it_stands() {
    for (text, line) in [("a:\n\tb: c\n", 2), ("a:\n  b: c\n\td: e\n", 3)] {
        let problem = problem(text);
        assert_eq!(problem.message, "a tab in the indentation");
        assert_eq!(place(problem.span.unwrap()), (line, 1, 1), "{text:?}");
    }
}

#[test]
fn what_is_not_read_is_refused_with_its_place() {
    let cases = [
        ("a: 1\0b\n", "NUL", (1, 5)),
        ("a: {b: 1}\nc:\n  <<: {d: 1}\n", "merge keys", (3, 3)),
        ("a:\n  ? [b]\n  : c\n", "a key must be a string", (2, 5)),
        ("a: b: c\n", "mapping values are not allowed", (1, 5)),
        ("{a: b}\n{c: d}\n", "<document start>", (2, 1)),
        ("a: @b\n", "unexpected character", (1, 4)),
    ];
    for (text, message, (line, column)) in cases {
        let problem = problem(text);
        assert!(problem.message.contains(message), "{text:?}: {}", problem.message);
        let span = problem.span.unwrap();
        assert_eq!((span.line, span.column), (line, column), "{text:?}: {}", problem.message);
        assert!(problem.hint.is_some(), "{text:?}");
    }
}

#[test]
fn unknown_tags_are_errors_and_the_rest_is_read() {
    let document = one("a: !secret x\nb: !!int 3\n");
    assert_eq!(document.problems.len(), 1);
    assert!(document.problems[0].message.contains("`!secret`"), "{document:#?}");
    assert!(document.root.is_some());
}
