//! The rule that the files of a module do not use each other in circles: whoever reads one of them
//! has an order to read the others in.

use std::collections::{BTreeMap, BTreeSet};

use super::lexer::{Token, tokens};
use super::{Problem, module_path};

/// By module: which of its files uses which, and where.
type Uses = BTreeMap<Vec<String>, BTreeMap<(String, String), (String, usize)>>;

/// Circles among the files of each module.
pub(super) fn circles(files: &[(String, String)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (module, uses) in uses(files) {
        let name = module.join("/");
        for circle in strongly_connected(&uses) {
            for ((from, to), (path, line)) in &uses {
                if circle.contains(from) && circle.contains(to) {
                    let what = format!(
                        "circles: {name}/{from} uses {name}/{to}, which needs {from} itself; move what \
                         both need to a file of its own"
                    );
                    problems.push(Problem::new(path, *line, what));
                }
            }
        }
    }
    problems
}

fn uses(files: &[(String, String)]) -> Uses {
    let modules: BTreeSet<Vec<String>> = files.iter().map(|(path, _)| module_path(path)).collect();
    let mut uses = Uses::new();
    for (path, text) in files {
        let own = module_path(path);
        if own.iter().any(|name| name == "tests" || name == "testing") {
            continue;
        }
        for (line, target) in paths(&without_tests(tokens(text)), &own) {
            let common = own.iter().zip(&target).take_while(|(own, other)| own == other).count();
            let (Some(from), Some(to)) = (own.get(common), target.get(common)) else {
                continue;
            };
            // The layers rule is about the outermost modules.
            if common == 0 || !modules.contains(&target[..=common]) {
                continue;
            }
            let edges = uses.entry(own[..common].to_vec()).or_default();
            edges.entry((from.clone(), to.clone())).or_insert((path.clone(), line));
        }
    }
    uses
}

/// What comes before the file's own tests.
fn without_tests(mut tokens: Vec<Token>) -> Vec<Token> {
    let is_tests = |at: &[Token]| at[0].text == "mod" && at[1].text == "tests" && at[2].text == "{";
    if let Some(end) = tokens.windows(3).position(is_tests) {
        tokens.truncate(end);
    }
    tokens
}

/// Each path from the crate's root, or through `super`, as its names from the root on.
fn paths(tokens: &[Token], own: &[String]) -> Vec<(usize, Vec<String>)> {
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if at > 0 && is(at - 1, "::") || !is(at + 1, "::") {
            continue;
        }
        match token.text.as_str() {
            "crate" => {
                names(tokens, at + 2, &mut Vec::new(), &mut found);
            }
            "super" => {
                let (mut at, mut from) = (at, own.to_vec());
                while is(at, "super") && is(at + 1, "::") {
                    from.pop();
                    at += 2;
                }
                names(tokens, at, &mut from, &mut found);
            }
            _ => {}
        }
    }
    found
}

/// The paths that begin at `at`, behind `prefix`: one, or one for each item of a group in braces.
fn names(
    tokens: &[Token],
    at: usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    let Some(token) = tokens.get(at) else {
        return at;
    };
    if token.text == "{" {
        let mut at = at + 1;
        while at < tokens.len() && !is(at, "}") {
            at = names(tokens, at, &mut prefix.clone(), found);
            // An alias, or a comma.
            while at < tokens.len() && !is(at, ",") && !is(at, "}") {
                at += 1;
            }
            at += usize::from(is(at, ","));
        }
        return at + 1;
    }
    prefix.push(token.text.clone());
    if is(at + 1, "::") {
        return names(tokens, at + 2, prefix, found);
    }
    found.push((token.line, prefix.clone()));
    at + 1
}

/// Sets of more than one file that all reach each other.
fn strongly_connected(uses: &BTreeMap<(String, String), (String, usize)>) -> Vec<BTreeSet<String>> {
    let reach = |from: &String| {
        let (mut reached, mut left) = (BTreeSet::new(), vec![from]);
        while let Some(at) = left.pop() {
            let next = uses.keys().filter(|(user, _)| user == at).map(|(_, used)| used);
            left.extend(next.filter(|used| reached.insert((*used).clone())));
        }
        reached
    };
    let nodes: BTreeSet<&String> = uses.keys().flat_map(|(from, to)| [from, to]).collect();
    let reached: BTreeMap<&String, BTreeSet<String>> =
        nodes.iter().map(|node| (*node, reach(node))).collect();
    let mut circles: Vec<BTreeSet<String>> = Vec::new();
    for node in nodes {
        if circles.iter().any(|circle| circle.contains(node)) {
            continue;
        }
        let back = reached[node].iter().filter(|other| reached[*other].contains(node));
        let circle: BTreeSet<String> = back.cloned().collect();
        if circle.len() > 1 {
            circles.push(circle);
        }
    }
    circles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[(&str, &str)]) -> Vec<(String, String)> {
        texts.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn circles_are_found() {
        let circle = [
            ("src/net/mod.rs", "use crate::net::b::B;"),
            ("src/net/a.rs", "use super::{Net, b::{B, C as D}};"),
            ("src/net/b.rs", "use crate::{app::App, net::c};"),
            ("src/net/c.rs", "fn f() { super::a::f() }"),
            ("src/net/d.rs", "use super::a::A;"),
        ];
        let found = circles(&files(&circle));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(circles(&files(&circle[..3])).is_empty());
    }

    #[test]
    fn parents_children_and_tests_make_none() {
        let fine = [
            ("src/net/worker.rs", "use moving::Moving; use crate::net::mailbox::Mailbox;"),
            (
                "src/net/worker/moving.rs",
                "use super::{Worker, sending}; use crate::net::order::Order;",
            ),
            ("src/net/worker/sending.rs", "use super::Worker;"),
            ("src/net/order.rs", "#[cfg(test)] mod tests { use crate::net::worker::Worker; }"),
            ("src/net/mailbox.rs", "use crate::net::order::Order; use crate::app::worker::X;"),
            ("src/net/mailbox/tests.rs", "use crate::net::worker::Worker;"),
        ];
        let found = circles(&files(&fine));
        assert!(found.is_empty(), "{found:?}");
    }
}
