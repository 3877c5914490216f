//! Style as a test: the rules of this repository that a machine can hold.
//!
//! Each rule is a function from text to [`Problem`]s and has a test with bad samples of its own,
//! so that a rule which no longer finds anything does not go unnoticed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/circles.rs"]
mod circles;
#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/logs.rs"]
mod logs;

use lexer::{Token, tokens};

/// Longest file in lines.
const FILE_LINES_MAX: usize = 800;

/// Folders with Rust files of ours.
const SOURCE_FOLDERS: [&str; 5] = ["src", "tests", "benches", "examples", "fuzz"];

/// Async runtimes, web frameworks and WebSocket libraries: what this project does by hand. A name
/// with a star stands for all that begin like it.
const FORBIDDEN_DEPENDENCIES: [&str; 24] = [
    "actix*",
    "async-std",
    "async-tungstenite",
    "axum*",
    "embedded-websocket",
    "fastwebsockets",
    "h2",
    "http-body*",
    "httparse",
    "hyper*",
    "poem*",
    "ratchet_*",
    "rocket*",
    "salvo*",
    "smol",
    "soketto",
    "tide",
    "tokio*",
    "tungstenite",
    "warp",
    "web-socket",
    "websocket*",
    "ws",
    "yawc",
];

/// What the layers without I/O must not name: sockets, clocks, threads, files, randomness.
const IO_WORDS: [&[&str]; 22] = [
    &["mio"],
    &["libc"],
    &["socket2"],
    &["TcpListener"],
    &["TcpStream"],
    &["UdpSocket"],
    &["UnixListener"],
    &["UnixStream"],
    &["Instant", "::", "now"],
    &["SystemTime", "::", "now"],
    &["std", "::", "thread"],
    &["thread", "::", "spawn"],
    &["thread", "::", "sleep"],
    &["std", "::", "env"],
    &["std", "::", "fs"],
    &["fs", "::", "read"],
    &["File", "::", "open"],
    &["std", "::", "process"],
    &["RandomState"],
    &["getrandom"],
    &["rand", "::"],
    &["use", "rand"],
];

/// The layers above this one do I/O.
const LAYER_WITHOUT_IO_MAX: usize = 3;

/// The module of a layer without I/O that is there for it, and the only one with `unsafe`.
const SYS: &str = "sys";

// The rules, on this repository.

#[test]
fn modules_use_only_layers_above_them() {
    let layers = Layers::of_this_repository();
    report(in_files("src", |path, text| imports(path, text, &layers)));
}

#[test]
fn files_of_a_module_do_not_use_each_other_in_circles() {
    let mut paths = Vec::new();
    collect_rust_files(&root().join("src"), &mut paths);
    let relative = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    let files: Vec<(String, String)> =
        paths.iter().map(|path| (relative(path), fs::read_to_string(path).unwrap())).collect();
    report(circles::circles(&files));
}

#[test]
fn the_inner_layers_do_no_io() {
    let layers = Layers::of_this_repository();
    report(in_files("src", |path, text| io_words(path, text, &layers)));
}

#[test]
fn unsafe_is_in_sys_and_argued() {
    report(in_all_files(unsafe_blocks));
}

#[test]
fn files_are_short() {
    report(in_all_files(file_length));
}

#[test]
fn log_lines_have_each_key_once_and_values_for_operators() {
    report(in_files("src", logs::fields));
}

#[test]
fn nothing_is_left_over() {
    report(in_all_files(leftovers));
}

#[test]
fn no_forbidden_dependency_is_in_the_binary() {
    let read = |name: &str| fs::read_to_string(root().join(name)).expect(name);
    let manifest = read("Cargo.toml");
    let locked = runtime_tree(&manifest, &read("Cargo.lock"));
    assert!(locked.contains_key("mio"), "the walk has lost its way: {locked:?}");
    report(forbidden_dependencies(&locked));
}

// What the rules are made of.

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    /// Relative to the repository.
    path: String,
    /// From 1.
    line: usize,
    /// Which rule, and what to do.
    what: String,
}

impl Problem {
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        let (path, what) = (path.to_owned(), what.into());
        Self { path, line, what }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

#[track_caller]
fn report(problems: Vec<Problem>) {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    assert!(lines.is_empty(), "{} problems:\n{}", lines.len(), lines.join("\n"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn in_all_files(rule: impl Fn(&str, &str) -> Vec<Problem>) -> Vec<Problem> {
    let folders = SOURCE_FOLDERS.iter().filter(|folder| root().join(folder).exists());
    folders.flat_map(|folder| in_files(folder, &rule)).collect()
}

/// Applies a rule to each Rust file below `folder`.
fn in_files(folder: &str, rule: impl Fn(&str, &str) -> Vec<Problem>) -> Vec<Problem> {
    let mut paths = Vec::new();
    collect_rust_files(&root().join(folder), &mut paths);
    assert!(!paths.is_empty() || folder == "fuzz", "no Rust file below {folder}/");
    let relative = |path: &Path| path.strip_prefix(root()).unwrap().display().to_string();
    let check = |path: &PathBuf| rule(&relative(path), &fs::read_to_string(path).unwrap());
    paths.iter().flat_map(check).collect()
}

fn collect_rust_files(folder: &Path, paths: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect_rust_files(&path, paths);
        } else if name.ends_with(".rs") {
            paths.push(path);
        }
    }
}

/// Place of each module in the table of `src/lib.rs`.
struct Layers {
    /// Name → layer, row of the table, place in the row.
    places: BTreeMap<String, Place>,
}

#[derive(Clone, Copy)]
struct Place {
    layer: usize,
    row: usize,
    column: usize,
}

impl Layers {
    fn of_this_repository() -> Self {
        let text = fs::read_to_string(root().join("src/lib.rs")).unwrap();
        let layers = Self::parse(&text);
        for module in ["base", SYS, "ws", "net", "cli", "main"] {
            assert!(
                layers.places.contains_key(module),
                "src/lib.rs: the layer table has no row with {module}"
            );
        }
        layers
    }

    /// Reads rows such as "//! | 5 | [`config`], [`server`] | what lives there |".
    fn parse(lib: &str) -> Self {
        let mut places = BTreeMap::new();
        for (row, line) in lib.lines().enumerate() {
            let Some(cells) = line.strip_prefix("//! |") else {
                continue;
            };
            let cells: Vec<&str> = cells.split('|').map(str::trim).collect();
            let Ok(layer) = cells[0].parse() else {
                continue;
            };
            for (column, name) in cells[1].split(',').enumerate() {
                let name = name.trim().trim_matches(['[', ']', '`']).trim_end_matches(".rs");
                places.insert(name.to_owned(), Place { layer, row, column });
            }
        }
        Self { places }
    }

    /// Whether `from` may use `to`: of a layer above it, or named before it in the same row. A
    /// test file may use its siblings too.
    fn allow(&self, from: Place, to: Place, is_tests: bool) -> bool {
        to.layer < from.layer
            || (to.row == from.row && to.column <= from.column)
            || (is_tests && to.layer == from.layer)
    }
}

/// Names of the modules a file of `src` is in: `src/ws/decoder/tests.rs` is `ws, decoder, tests`.
fn module_path(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut names: Vec<String> = path.split('/').map(str::to_owned).collect();
    if names.last().is_some_and(|name| name == "mod" || name == "lib") {
        names.pop();
    }
    names
}

/// The import rule: each path that starts at `crate`, or at `super` and leaves its own module.
fn imports(path: &str, text: &str, layers: &Layers) -> Vec<Problem> {
    let modules = module_path(path);
    let Some(own) = modules.first() else {
        return Vec::new(); // lib.rs names all
    };
    let is_tests = modules.iter().skip(1).any(|name| name == "tests");
    let mut problems = Vec::new();
    for (line, target) in top_level_paths(&tokens(text), modules.len()) {
        let mut problem = |what: String| problems.push(Problem::new(path, line, what));
        if target == *own {
            continue;
        }
        match (layers.places.get(own), layers.places.get(&target)) {
            (None, _) => problem(format!(
                "imports: module {own} is not in the layer table of src/lib.rs; add it there"
            )),
            (_, None) => problem(format!(
                "imports: crate::{target} is not in the layer table of src/lib.rs; name the \
                 module an item lives in, and add the module to the table if it is new"
            )),
            (Some(from), Some(to)) if !layers.allow(*from, *to, is_tests) => problem(format!(
                "imports: {own} (layer {}) uses {target} (layer {}); a module uses only layers \
                 above it: pass the value in, or move the code",
                from.layer, to.layer
            )),
            _ => {}
        }
    }
    problems
}

/// The first name after the crate's root of each path that starts there, with its line; `depth`
/// is how many modules the file itself is in.
fn top_level_paths(tokens: &[Token], depth: usize) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // One entry an open brace: whether it is a module's.
    let mut braces = Vec::new();
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    for (at, token) in tokens.iter().enumerate() {
        let continues = at > 0 && is(at - 1, "::");
        match token.text.as_str() {
            "{" => braces.push(at >= 2 && is(at - 2, "mod")),
            "}" => drop(braces.pop()),
            "crate" | "steadfast" if !continues && is(at + 1, "::") => {
                first_names(tokens, at + 2, &mut found);
            }
            "super" if !continues => {
                let mut end = at;
                let mut supers = 0;
                while is(end, "super") && is(end + 1, "::") {
                    supers += 1;
                    end += 2;
                }
                let inline = braces.iter().filter(|is_module| **is_module).count();
                if supers > 0 && supers >= depth + inline {
                    first_names(tokens, end, &mut found);
                }
            }
            _ => {}
        }
    }
    found
}

/// The name at `at`, or each first name of the group in braces that starts there.
fn first_names(tokens: &[Token], at: usize, found: &mut Vec<(usize, String)>) {
    let mut depth = 0;
    let mut expected = true;
    for token in tokens.iter().skip(at) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => expected = true,
            name if expected => {
                found.push((token.line, name.to_owned()));
                expected = false;
            }
            _ => {}
        }
        if depth == 0 {
            return;
        }
    }
}

/// The layers without I/O, held to it; tests in them too.
fn io_words(path: &str, text: &str, layers: &Layers) -> Vec<Problem> {
    let modules = module_path(path);
    let place = modules.first().and_then(|own| layers.places.get(own));
    let is_inner = place.is_some_and(|place| place.layer <= LAYER_WITHOUT_IO_MAX);
    if !is_inner || modules[0] == SYS {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let tokens = tokens(text);
    for words in IO_WORDS {
        for at in occurrences(&tokens, words) {
            let what = format!(
                "sans-I/O: `{}` in a layer without I/O, clock, threads and randomness; let the \
                 caller pass the value in",
                words.concat()
            );
            problems.push(Problem::new(path, tokens[at].line, what));
        }
    }
    problems
}

fn occurrences(tokens: &[Token], words: &[&str]) -> Vec<usize> {
    let matches = |window: &[Token]| window.iter().map(|token| &token.text).eq(words);
    let windows = tokens.windows(words.len()).enumerate();
    windows.filter(|(_, window)| matches(window)).map(|(at, _)| at).collect()
}

/// `unsafe` in `src/sys` alone (benches and fuzz targets are no part of the server), and each with
/// its argument in the comment that ends just above it. An `unsafe fn` asks for one, where it is
/// called; the blocks in its body are blocks like any other.
fn unsafe_blocks(path: &str, text: &str) -> Vec<Problem> {
    let in_server = !path.starts_with("benches/") && !path.starts_with("fuzz/");
    let in_sys = path.starts_with("src/sys/");
    let lines: Vec<&str> = text.lines().collect();
    let mut problems = Vec::new();
    let tokens = tokens(text);
    for (at, token) in tokens.iter().enumerate() {
        let mut problem = |what: &str| problems.push(Problem::new(path, token.line, what));
        let declares = tokens.get(at + 1).is_some_and(|next| next.text == "fn");
        let names_it = token.text == "unsafe" || token.text == "unsafe_code";
        if names_it && in_server && !in_sys {
            problem("unsafe: only src/sys may; add a safe function there");
        } else if token.text == "unsafe" && !declares && !is_argued(&lines, token.line - 1) {
            problem("unsafe: say above it why it is sound, in a comment with SAFETY:");
        }
    }
    problems
}

/// Whether the comment above line `at` (from 0), or above the line before it where a statement is
/// broken in two, has the mark.
fn is_argued(lines: &[&str], at: usize) -> bool {
    let is_comment = |line: &&&str| line.trim_start().starts_with("//");
    let above = &lines[..at];
    let comment_ends = match above.last() {
        Some(line) if is_comment(&line) => at,
        _ => at.saturating_sub(1),
    };
    let comment = lines[..comment_ends].iter().rev().take_while(is_comment);
    comment.into_iter().any(|line| line.contains("// SAFETY: "))
}

fn file_length(path: &str, text: &str) -> Vec<Problem> {
    match text.lines().count() {
        0..=FILE_LINES_MAX => Vec::new(),
        lines => vec![Problem::new(
            path,
            lines,
            format!(
                "length: {lines} lines, above {FILE_LINES_MAX}; split the file by what it does"
            ),
        )],
    }
}

/// Marks of unfinished work anywhere, and printing where the log should be written to.
fn leftovers(path: &str, text: &str) -> Vec<Problem> {
    // In pieces, so that this file does not find itself.
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"], ["HA", "CK"]].map(|mark| mark.concat());
    let mut problems = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        if let Some(word) = words.find(|word| marks.iter().any(|mark| mark == word)) {
            let what = format!("leftover: {word}; do it, or open an issue");
            problems.push(Problem::new(path, at + 1, what));
        }
    }
    let may_print =
        !path.starts_with("src/") || path.starts_with("src/cli/") || path == "src/main.rs";
    let tokens = tokens(text);
    for pair in tokens.windows(2).filter(|pair| pair[1].text == "!") {
        let name = pair[0].text.as_str();
        let what = match name {
            "dbg" | "todo" | "unimplemented" => format!("leftover: {name}!; remove it"),
            "print" | "println" | "eprint" | "eprintln" if !may_print => {
                format!("leftover: {name}! outside src/cli; use tracing")
            }
            _ => continue,
        };
        problems.push(Problem::new(path, pair[0].line, what));
    }
    problems
}

/// Every package the binary may be built from, each with the one that asks for it: a walk through
/// the lock file from the manifest's dependencies other than those of tests. The lock file lists
/// no tests' dependencies of packages from elsewhere.
fn runtime_tree(manifest: &str, lock: &str) -> BTreeMap<String, String> {
    let manifest: toml::Table = manifest.parse().expect("Cargo.toml is TOML");
    let lock: toml::Table = lock.parse().expect("Cargo.lock is TOML");
    let mut edges = BTreeMap::<&str, BTreeSet<&str>>::new();
    for package in lock["package"].as_array().expect("a list of packages") {
        let dependencies = package.get("dependencies").and_then(|list| list.as_array());
        // "name", or "name version" where there are several.
        let names = dependencies.into_iter().flatten().filter_map(|text| text.as_str());
        let names = names.filter_map(|text| text.split(' ').next());
        edges.entry(package["name"].as_str().unwrap()).or_default().extend(names);
    }
    let mut tree = BTreeMap::new();
    let mut left: Vec<(String, String)> = Vec::new();
    let targets = manifest.get("target").and_then(|table| table.as_table());
    let targets = targets.into_iter().flat_map(|table| table.values().filter_map(|v| v.as_table()));
    for table in targets.chain([&manifest]) {
        for kind in ["dependencies", "build-dependencies"] {
            let Some(dependencies) = table.get(kind).and_then(|table| table.as_table()) else {
                continue;
            };
            for (name, wanted) in dependencies {
                // A dependency may go by another name here than in the lock file.
                let package = wanted.get("package").and_then(|name| name.as_str());
                left.push((package.unwrap_or(name).to_owned(), "Cargo.toml".to_owned()));
            }
        }
    }
    while let Some((name, asked_by)) = left.pop() {
        if tree.contains_key(&name) {
            continue;
        }
        let next = edges.get(name.as_str()).into_iter().flatten();
        left.extend(next.map(|next| ((*next).to_owned(), name.clone())));
        tree.insert(name, asked_by);
    }
    tree
}

fn forbidden_dependencies(tree: &BTreeMap<String, String>) -> Vec<Problem> {
    let is_forbidden = |name: &str| {
        FORBIDDEN_DEPENDENCIES.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *pattern,
        })
    };
    let bad = tree.iter().filter(|(name, _)| is_forbidden(name));
    bad.map(|(name, asked_by)| {
        let what = format!(
            "dependencies: {name} (asked for by {asked_by}) may not be in the binary; do without, \
             or make it a dev-dependency"
        );
        Problem::new("Cargo.lock", 1, what)
    })
    .collect()
}

// The rules, on bad samples.

fn sample_layers() -> Layers {
    Layers::parse(
        "//! | layer | module | what |\n//! |---|---|---|\n\
         //! | 0 | [`base`] | x |\n//! | 0 | [`sys`] | x |\n\
         //! | 1 | [`http`] | x |\n//! | 1 | [`ws`] | x |\n\
         //! | 2 | [`session`] | x |\n//! | 4 | [`net`] | x |\n\
         //! | 5 | [`config`], [`server`] | x |\n//! | 6 | [`cli`], `main.rs` | x |\n",
    )
}

fn lines(problems: &[Problem]) -> Vec<usize> {
    problems.iter().map(|problem| problem.line).collect()
}

#[test]
fn imports_of_siblings_and_of_layers_below_are_found() {
    let check = |path: &str, text: &str| lines(&imports(path, text, &sample_layers()));
    for (path, text, expected) in [
        ("src/ws/decoder.rs", "use crate::base::slab;\nuse crate::ws::mask;", &[][..]),
        ("src/ws/decoder.rs", "use crate::http::head;", &[1]),
        ("src/ws/mod.rs", "\nfn f() { crate::session::g() }", &[2]),
        ("src/ws/mod.rs", "use crate::{\nbase::{slab, net},\nnet,\nsession::{a, b}};", &[3, 4]),
        ("src/ws/mod.rs", "use super::http;", &[1]),
        ("src/ws/decoder.rs", "use super::mask;\nuse super::super::http;", &[2]),
        ("src/ws/decoder.rs", "use super::{super::http, mask};", &[]),
        ("src/ws/a.rs", "mod tests { use super::super::b; }\nuse super::super::net;", &[2]),
        ("src/ws/a.rs", "mod tests { fn f() {} use super::super::super::http; }", &[1]),
        ("src/ws/mod.rs", "// use crate::net;\n\"crate::net\"; pub(crate) fn f() {}", &[]),
        ("src/ws/mod.rs", "macro_rules! m { () => { $crate::net::f() } }", &[1]),
        ("src/ws/mod.rs", "use crate::Server;\nuse crate::*;", &[1, 2]),
        ("src/base/slab.rs", "use crate::sys::rand;", &[1]),
        ("src/sys/rand.rs", "use crate::base::slab;", &[1]),
        ("src/ws/mask/tests.rs", "use crate::http::head;\nuse crate::net;", &[2]),
        ("src/server.rs", "use crate::config::Config; use crate::net;", &[]),
        ("src/config/mod.rs", "use crate::server::Server;", &[1]),
        ("src/main.rs", "steadfast::cli::main()", &[]),
        ("src/new/mod.rs", "use crate::base;", &[1]),
        ("src/lib.rs", "use crate::base;", &[]),
    ] {
        assert_eq!(check(path, text), expected, "{path}: {text}");
    }
}

#[test]
fn io_in_the_inner_layers_is_found() {
    let check = |path: &str, text: &str| lines(&io_words(path, text, &sample_layers()));
    for bad in [
        "use mio::Poll;",
        "libc::read()",
        "use std::net::{IpAddr, TcpStream};",
        "let now = std::time::Instant::now();",
        "SystemTime\n::now()",
        "use std::thread;",
        "thread::spawn(f)",
        "rand::random()",
        "mod tests { use std::fs; }",
    ] {
        assert_eq!(check("src/ws/mod.rs", bad), [1], "{bad}");
        assert_eq!(check("src/ws/mask/tests.rs", bad), [1], "{bad}");
        assert_eq!(check("src/net/mod.rs", bad), [], "{bad}");
        assert_eq!(check("src/sys/mod.rs", bad), [], "{bad}");
    }
    let good = "use std::net::IpAddr; use std::time::Duration; fn f(now: Instant) { Tick::now() }";
    assert_eq!(check("src/ws/mod.rs", good), []);
}

#[test]
fn unsafe_elsewhere_or_without_an_argument_is_found() {
    let argued = "// SAFETY: it is\n// sound\nlet x = unsafe { f() };";
    let broken_in_two = "// SAFETY: it is\nlet x =\n    unsafe { f() };";
    let bare = "f();\nunsafe { g() }";
    let too_far = "// SAFETY: for f\nf();\ng();\nunsafe { h() }";
    let allowed = "#![allow(unsafe_code)]";
    let declared = "unsafe fn f() {\n    // SAFETY: it is\n    unsafe { g() }\n}";
    let declared_bare = "unsafe fn f() {\n\n    unsafe { g() }\n}";
    let check = |path: &str, text: &str| lines(&unsafe_blocks(path, text));
    for good in [argued, broken_in_two, allowed, declared, "// unsafe\n\"unsafe\""] {
        assert_eq!(check("src/sys/a.rs", good), [], "{good}");
    }
    assert_eq!(check("src/sys/a.rs", bare), [2]);
    assert_eq!(check("src/sys/a.rs", too_far), [4]);
    assert_eq!(check("src/sys/a.rs", declared_bare), [3]);
    assert_eq!(check("src/ws/a.rs", declared), [1, 3]);
    assert_eq!(check("src/ws/a.rs", argued), [3]);
    assert_eq!(check("src/ws/a.rs", allowed), [1]);
    assert_eq!(check("tests/a.rs", argued), [3]);
    assert_eq!(check("benches/a.rs", argued), []);
    assert_eq!(check("benches/a.rs", bare), [2]);
}

#[test]
fn long_files_are_found() {
    assert_eq!(file_length("a.rs", &"\n".repeat(FILE_LINES_MAX)), []);
    assert_eq!(lines(&file_length("a.rs", &"\n".repeat(FILE_LINES_MAX + 1))), [801]);
}

#[test]
fn leftovers_are_found() {
    let check = |path: &str, text: &str| lines(&leftovers(path, text));
    let mark = ["TO", "DO"].concat();
    assert_eq!(check("src/a.rs", &format!("\n// {mark}: more")), [2]);
    assert_eq!(check("src/a.rs", &format!("let MY_{mark} = \"{mark}S\";")), []);
    assert_eq!(check("src/a.rs", "dbg!(1);\ntodo!()\n"), [1, 2]);
    assert_eq!(check("src/a.rs", "println!();\nif a != b {}"), [1]);
    assert_eq!(check("src/cli/a.rs", "println!(); dbg!()"), [1]);
    assert_eq!(check("tests/a.rs", "eprintln!()"), []);
}

#[test]
fn forbidden_dependencies_are_found_however_deep() {
    let manifest = "[dependencies]\na = '1'\n[dev-dependencies]\ntungstenite = '1'\n\
                    [target.'cfg(unix)'.dependencies]\nb = { package = 'c', version = '1' }\n";
    let lock = "[[package]]\nname = 'ours'\ndependencies = ['a', 'c', 'tungstenite']\n\
                [[package]]\nname = 'a'\ndependencies = ['d 1.0.0']\n\
                [[package]]\nname = 'c'\ndependencies = ['hyper-util', 'a']\n\
                [[package]]\nname = 'd'\ndependencies = ['tokio', 'a']\n";
    let tree = runtime_tree(manifest, lock);
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["a", "c", "d", "hyper-util", "tokio"]);
    let found = forbidden_dependencies(&tree);
    assert_eq!(found.len(), 2);
    assert!(found[0].what.contains("hyper-util (asked for by c)"), "{}", found[0]);
    assert!(found[1].what.contains("tokio (asked for by d)"), "{}", found[1]);
}

#[test]
#[should_panic(expected = "src/a.rs:7: rule: advice")]
fn problems_are_reported_with_their_place() {
    report(vec![Problem::new("src/a.rs", 7, "rule: advice")]);
}
