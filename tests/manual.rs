//! The documentation, held to what there is: paths, make targets, verbs, flags, configurations.
//!
//! Each check is a function from text to complaints and has a test with bad samples of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What is held to it.
const PAGES: [&str; 12] = [
    "README.md",
    "CHANGELOG.md",
    "autobahn/README.md",
    "benches/README.md",
    "deploy/steadfast.service",
    "examples/poll.rs",
    "src/manual/apps.md",
    "src/manual/configuration.md",
    "src/manual/limits.md",
    "src/manual/operating.md",
    "src/manual/upgrading.md",
    "src/manual/protocol.md",
];

/// Words in code spans that begin like this are paths of the repository.
const FOLDERS: [&str; 8] =
    ["src/", "tests/", "benches/", "examples/", "autobahn/", "deploy/", "fuzz/", ".ci/"];

#[test]
fn paths_exist() {
    // What is left out of the repository on purpose comes to be when its script runs.
    let ignored = read(".gitignore");
    let made = |path: &Path| {
        ignored.lines().any(|line| line.trim_start_matches('/') == path.to_string_lossy())
    };
    let exists = |path: &Path| made(path) || root().join(path).exists();
    report(|page, text| missing_paths(page, text, &exists));
}

#[test]
fn make_targets_exist() {
    let targets = make_targets(&read("Makefile"));
    assert!(targets.contains("test"), "{targets:?}");
    report(|_, text| unknown_make_targets(text, &targets));
}

#[test]
fn every_make_target_is_explained() {
    let help = Command::new("make").arg("help").current_dir(root()).output();
    let help = text_of(help.expect("make runs"));
    for target in make_targets(&read("Makefile")) {
        let line = help.lines().find(|line| line.trim().starts_with(&format!("make {target} ")));
        assert!(line.is_some(), "`make help` leaves out {target}:\n{help}");
    }
}

#[test]
fn verbs_and_flags_exist() {
    let verbs = verbs();
    assert!(verbs["serve"].contains("--config"), "{verbs:?}");
    // Flags alone are another program's there.
    let of_another = |page: &str| page.starts_with("autobahn/") || page.starts_with("benches/");
    report(|page, text| match of_another(page) {
        true => Vec::new(),
        false => unknown_verbs_and_flags(text, &verbs),
    });
}

#[test]
fn configurations_hold() {
    let folder = std::env::temp_dir().join(format!("steadfast-manual-{}", std::process::id()));
    fs::create_dir(&folder).expect("a folder of this process alone");
    // Named by the configuration reference.
    fs::write(folder.join("tokens"), "# of nobody\nsample\n").expect("written");
    let mut checked = 0;
    let mut wrong = String::new();
    for page in PAGES {
        for block in blocks(&read(page)).into_iter().filter(|block| block.language == "toml") {
            checked += 1;
            if let Err(errors) = check_config(&folder, &block.text) {
                wrong += &format!("{page}, line {}:\n{errors}\n", block.line);
            }
        }
    }
    let told = check_config(&folder, "worker = 4\n");
    fs::remove_dir_all(&folder).expect("removed");
    assert!(wrong.is_empty(), "{wrong}");
    assert!(checked >= 4, "only {checked} configurations found");
    assert!(told.expect_err("a wrong key").contains("worker"));
}

// The checks.

/// Link targets and paths in code spans that are not there.
fn missing_paths(page: &str, text: &str, exists: &dyn Fn(&Path) -> bool) -> Vec<String> {
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    let prose = prose(text);
    let links = links(&prose).into_iter().filter(|link| !link.contains("::") && *link != "crate");
    let links = links
        .filter(|link| !link.starts_with('#') && !link.contains("://"))
        .map(|link| folder.join(link.split('#').next().unwrap_or_default()));
    // Relative to the page or to the repository, as its readers would look for it.
    let spans = code_spans(&prose).into_iter().flat_map(str::split_whitespace);
    let spans = spans
        .filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)))
        .filter(|word| !word.contains(['<', '*', '{', '…']))
        .filter(|word| !exists(&folder.join(word)))
        .map(PathBuf::from);
    let missing = links.chain(spans).filter(|path| !exists(path));
    missing.map(|path| format!("{} is not there", path.display())).collect()
}

/// `make x` in code where the Makefile has no x.
fn unknown_make_targets(text: &str, targets: &BTreeSet<String>) -> Vec<String> {
    let commands = commands(text);
    let named = commands.iter().filter(|words| words[0] == "make").filter_map(|words| words.get(1));
    let unknown = named.filter(|target| !targets.contains(*target) && !target.contains('='));
    unknown.map(|target| format!("there is no `make {target}`")).collect()
}

/// Verbs and flags of `steadfast …` in code that the program does not have, and flags alone in a
/// code span that no verb has.
fn unknown_verbs_and_flags(text: &str, verbs: &BTreeMap<String, String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for words in commands(text) {
        if words[0].starts_with("--") {
            let flag = words[0].split('=').next().unwrap_or_default();
            if flag != "--" && !verbs.values().any(|help| has_flag(help, flag)) {
                complaints.push(format!("no verb has {flag}"));
            }
        }
        if words[0] != "steadfast" && !words[0].ends_with("/steadfast") {
            continue;
        }
        let named = words.get(1).filter(|word| !word.starts_with('-'));
        let verb = named.map_or("serve", String::as_str);
        let Some(help) = verbs.get(verb) else {
            complaints.push(format!("there is no `steadfast {verb}`"));
            continue;
        };
        for flag in words.iter().filter(|word| word.starts_with("--")) {
            let flag = flag.split('=').next().unwrap_or_default();
            if !has_flag(help, flag) {
                complaints.push(format!("`steadfast {verb}` has no {flag}"));
            }
        }
    }
    complaints
}

fn has_flag(help: &str, flag: &str) -> bool {
    let mut words = help.split(|char: char| !char.is_ascii_alphanumeric() && char != '-');
    words.any(|word| word == flag)
}

/// What `steadfast check-config` has to say about a text.
fn check_config(folder: &Path, text: &str) -> Result<(), String> {
    let path = folder.join("sample.toml");
    fs::write(&path, text).expect("written");
    let checked = steadfast(&["check-config", path.to_str().expect("UTF-8")]);
    match checked.status.code() {
        Some(0) => Ok(()),
        _ => Err(String::from_utf8_lossy(&checked.stderr).into_owned()),
    }
}

/// Each verb with its long help.
fn verbs() -> BTreeMap<String, String> {
    let help = text_of(steadfast(&["--help"]));
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help");
    names.map(|name| (name.to_owned(), text_of(steadfast(&[name, "--help"])))).collect()
}

/// The program, without the environment's configuration.
fn steadfast(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    for (name, _) in std::env::vars_os()
        .filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with("STEADFAST_")))
    {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).output().expect("the binary starts")
}

/// The names before colons at the beginning of a Makefile's lines.
fn make_targets(makefile: &str) -> BTreeSet<String> {
    let heads = makefile.lines().filter_map(|line| line.split_once(':')).map(|(head, _)| head);
    let is_name = |head: &&str| {
        !head.is_empty() && head.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    heads.filter(is_name).map(str::to_owned).collect()
}

// Reading pages.

struct Block {
    language: String,
    /// Of the opening fence, from 1.
    line: usize,
    text: String,
}

/// The fenced blocks of a page.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for (at, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), inside) {
            (Some(language), false) => {
                let language = language.trim().to_owned();
                blocks.push(Block { language, line: at + 1, text: String::new() });
                inside = true;
            }
            (Some(_), true) => inside = false,
            (None, true) => {
                let block = blocks.last_mut().expect("one was opened");
                block.text += line;
                block.text.push('\n');
            }
            (None, false) => {}
        }
    }
    blocks
}

/// A page without its fenced blocks.
fn prose(text: &str) -> String {
    let mut inside = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// What is between single backticks; a span may go over a line's end.
fn code_spans(prose: &str) -> Vec<&str> {
    prose.split("\n\n").flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2)).collect()
}

/// The targets of `[text](target)` and of lines `[name]: target`.
fn links(prose: &str) -> Vec<&str> {
    let rests = prose.split("](").skip(1);
    let inline = rests.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let defined = prose.lines().filter(|line| line.starts_with('['));
    let defined = defined.filter_map(|line| line.split_once("]: ")).map(|(_, target)| target);
    inline.chain(defined).collect()
}

/// Everything in a page that one would type, in words: code spans, and the lines of blocks that are
/// no program text; of a pipe, each side. `ExecStart=` of a unit counts as well.
fn commands(text: &str) -> Vec<Vec<String>> {
    let prose = prose(text);
    let of_blocks = blocks(text);
    let typed = of_blocks.iter().filter(|block| ["sh", "text"].contains(&&*block.language));
    let lines = typed.flat_map(|block| block.text.lines());
    let units = text.lines().filter_map(|line| line.strip_prefix("ExecStart="));
    let words = code_spans(&prose).into_iter().chain(lines).chain(units).flat_map(|line| {
        let line = line.split(" #").next().unwrap_or_default();
        line.split(['|', ';']).map(|command| {
            command.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect()
        })
    });
    words.filter(|words: &Vec<String>| !words.is_empty()).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file's text; of program text, what its head says.
fn read(path: &str) -> String {
    let text = fs::read_to_string(root().join(path));
    let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
    if !path.ends_with(".rs") {
        return text;
    }
    let head = text.lines().map_while(|line| line.strip_prefix("//!"));
    head.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}

fn text_of(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Fails with all that a check finds in all pages.
fn report(check: impl Fn(&str, &str) -> Vec<String>) {
    let of_page =
        |page| check(page, &read(page)).into_iter().map(move |what| format!("{page}: {what}"));
    let complaints: Vec<String> = PAGES.into_iter().flat_map(of_page).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

// That the checks find something.

#[test]
fn missing_paths_are_found() {
    let text = "[a](there.md#part) [b](gone.md) [c](https://example.org) [d](crate::app) [e](#here)\n\
                [f]: lost.md\n\
                `src/there` `src/gone.rs` and `cat tests/gone | wc`, `src/<any>`\n\
                ```sh\ncat src/unchecked\n```\n";
    let there =
        |path: &Path| ["x/there.md", "src/there"].iter().any(|there| path == Path::new(there));
    let complaints = missing_paths("x/page.md", text, &there);
    assert_eq!(
        complaints,
        [
            "x/gone.md is not there",
            "x/lost.md is not there",
            "src/gone.rs is not there",
            "tests/gone is not there"
        ]
    );
}

#[test]
fn unknown_make_targets_are_found() {
    let targets = make_targets("A ?= 1\n.PHONY: x\nrun: build ## runs\n\tcmd: x\ntest-all:\n");
    assert_eq!(targets.iter().collect::<Vec<_>>(), ["run", "test-all"]);
    let text =
        "make sense of `make run`, `make` and `make nothing`\n```sh\nmake gone # make it\n```\n";
    let complaints = unknown_make_targets(text, &targets);
    assert_eq!(complaints, ["there is no `make nothing`", "there is no `make gone`"]);
}

#[test]
fn unknown_verbs_and_flags_are_found() {
    let help = |text: &str| text.to_owned();
    let verbs: BTreeMap<_, _> = [
        ("serve".to_owned(), help("--config <FILE>\n--workers <N>")),
        ("client".to_owned(), help("--header <LINE>")),
    ]
    .into();
    let text = "`steadfast --config x`, `steadfast upgrade`, `--header`, `--work`\n\
                ```sh\necho hi | /bin/steadfast client --headers a\ncargo --bogus\n```\n\
                ExecStart=/bin/steadfast serve --conf x\n";
    assert_eq!(
        unknown_verbs_and_flags(text, &verbs),
        [
            "there is no `steadfast upgrade`",
            "no verb has --work",
            "`steadfast client` has no --headers",
            "`steadfast serve` has no --conf",
        ]
    );
}
