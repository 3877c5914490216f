//! As much of Rust's lexical structure as the rules of `tests/tidy.rs` need.

/// An identifier, a number, `::`, or another character of punctuation. Comments, lifetimes and
/// what is in text literals leave nothing behind; a text literal leaves its quote.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) text: String,
    /// From 1.
    pub(super) line: usize,
}

pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0, line: 1 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next() {
        tokens.push(token);
    }
    tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Lexer {
    fn next(&mut self) -> Option<Token> {
        loop {
            let line = self.line;
            let text = match (self.peek(0)?, self.peek(1)) {
                ('/', Some('/')) => {
                    self.skip_until("\n");
                    continue;
                }
                ('/', Some('*')) => {
                    self.skip_block_comment();
                    continue;
                }
                ('\'', _) => {
                    self.skip_char_or_lifetime();
                    continue;
                }
                ('"', _) => {
                    self.skip_text();
                    "\"".to_owned()
                }
                (':', Some(':')) => {
                    self.at += 2;
                    "::".to_owned()
                }
                (c, _) if is_word(c) => {
                    let word = self.word();
                    if self.skip_raw_text(&word) { "\"".to_owned() } else { word }
                }
                (c, _) => {
                    self.step();
                    if c.is_whitespace() {
                        continue;
                    }
                    c.to_string()
                }
            };
            return Some(Token { text, line });
        }
    }

    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn step(&mut self) {
        self.line += usize::from(self.peek(0) == Some('\n'));
        self.at += 1;
    }

    fn sees(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(ahead, c)| self.peek(ahead) == Some(c))
    }

    /// Stops after `end`, or at the end of the file.
    fn skip_until(&mut self, end: &str) {
        while self.peek(0).is_some() && !self.sees(end) {
            self.step();
        }
        end.chars().for_each(|_| self.step());
    }

    fn skip_block_comment(&mut self) {
        let mut depth = 0;
        while self.peek(0).is_some() {
            let (opens, closes) = (self.sees("/*"), self.sees("*/"));
            depth += usize::from(opens);
            depth -= usize::from(closes);
            if opens || closes {
                self.at += 1;
            }
            self.step();
            if depth == 0 {
                return;
            }
        }
    }

    fn skip_char_or_lifetime(&mut self) {
        let is_char = self.peek(1) == Some('\\') || self.peek(2) == Some('\'');
        self.at += 1;
        if is_char {
            self.at += usize::from(self.peek(0) == Some('\\'));
            self.step();
            self.skip_until("'");
        } else {
            self.word();
        }
    }

    fn skip_text(&mut self) {
        self.at += 1;
        while let Some(c) = self.peek(0) {
            if c == '\\' {
                self.at += 1;
            }
            self.step();
            if c == '"' {
                return;
            }
        }
    }

    /// After the word of a prefix: the raw text it belongs to, if it does.
    fn skip_raw_text(&mut self, prefix: &str) -> bool {
        let hashes = (0..).take_while(|ahead| self.peek(*ahead) == Some('#')).count();
        if !matches!(prefix, "r" | "br" | "cr") || self.peek(hashes) != Some('"') {
            return false;
        }
        self.at += hashes + 1;
        self.skip_until(&format!("\"{}", "#".repeat(hashes)));
        true
    }

    fn word(&mut self) -> String {
        let rest = &self.chars[self.at..];
        let word: String = rest.iter().copied().take_while(|c| is_word(*c)).collect();
        self.at += word.chars().count();
        word
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[test]
fn the_lexer_sees_code_and_nothing_else() {
    let text = r##"a::b /* c /* d */ e */ "f \" g" // h
        'i' '\'' '\\' '\u{1F600}' 'j: &'static k r"l" r#"m " n"# br"o" b"p" b'q'
        r#type 'é' "
        " s!{}"##;
    let words: Vec<_> = tokens(text).into_iter().map(|token| token.text).collect();
    let expected = [
        "a", "::", "b", "\"", ":", "&", "k", "\"", "\"", "\"", "b", "\"", "b", "r", "#", "type",
        "\"", "s", "!", "{", "}",
    ];
    assert_eq!(words, expected);
    assert_eq!(tokens(text).last().unwrap().line, 4);
    assert_eq!(tokens("/* open"), []);
    assert_eq!(tokens("'"), []);
    assert_eq!(tokens("\"open \\").len(), 1);
}
