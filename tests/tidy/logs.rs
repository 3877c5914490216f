//! Log lines in JSON: each key once, and no value that is Rust's `Debug` text.

use super::lexer::{Token, tokens};
use super::{Problem, occurrences};

/// Keys that every line has.
const KEYS_OF_LINES: [&str; 4] = ["timestamp", "level", "target", "message"];

const MACROS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "limited"];

/// Fields of log lines that give a line one of its own keys a second time, or whose value (`?field`) is
/// for programmers. Tests may.
pub(super) fn fields(path: &str, text: &str) -> Vec<Problem> {
    if !path.starts_with("src/") || path.contains("/tests") {
        return Vec::new();
    }
    let all = tokens(text);
    let tests = occurrences(&all, &["cfg", "(", "test", ")"]);
    let all = &all[..tests.first().copied().unwrap_or(all.len())];
    let mut problems = Vec::new();
    for (at, name) in all.iter().enumerate() {
        let is_macro = MACROS.contains(&&*name.text)
            && all.get(at + 1).is_some_and(|token| token.text == "!")
            && all.get(at + 2).is_some_and(|token| token.text == "(");
        if is_macro {
            problems.extend(in_arguments(path, &all[at + 2..]));
        }
    }
    problems
}

/// `tokens` begin with the parenthesis in front of the arguments.
fn in_arguments(path: &str, tokens: &[Token]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match &*token.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        let before = at.checked_sub(1).map_or("", |at| &*tokens[at].text);
        let after = tokens.get(at + 1).map_or("", |token| &*token.text);
        let begins = depth == 1 && matches!(before, "(" | ",");
        if token.text == "?" && depth == 1 && matches!(before, "(" | "," | "=") {
            let what = "log: a value that is Debug text; give it a Display, or name its fields";
            problems.push(Problem::new(path, token.line, what));
        }
        if begins && KEYS_OF_LINES.contains(&&*token.text) && matches!(after, "=" | "," | ")") {
            let what = format!("log: `{}` is a key that each line has already", token.text);
            problems.push(Problem::new(path, token.line, what));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_a_line_has_already_and_debug_text_are_found() {
        let lines = |text: &str| {
            let problems = fields("src/a.rs", text);
            problems.iter().map(|problem| problem.line).collect::<Vec<_>>()
        };
        assert_eq!(lines("tracing::info!(\n?a,\nb = ?c(d, ?e),\n\"x\"\n);"), [2, 3]);
        assert_eq!(lines("limited!(warn,\ntarget = 1, target, level = 2, message)"), [2; 4]);
        assert_eq!(lines("tracing::debug!(target: \"a\", x = f(target, g()?), \"y\");"), []);
        assert_eq!(lines("info!(%a, b);\n#[cfg(test)]\nfn f() { info!(?a) }"), []);
        assert_eq!(fields("tests/a.rs", "info!(?a)"), []);
    }
}
