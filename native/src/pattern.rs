//! Patterns of the expression language: written in RE2's syntax, searched by the engine of the `regex` crate (its
//! regex-syntax and regex-automata) in linear time.
//!
//! The two syntaxes differ in little; `Reader` writes what differs in the crate's way:
//! - \d \w \s \b \B know ASCII only;
//! - a brace that begins no repetition, and `[`, `&&`, `--`, `~~` in a set, stand for themselves;
//! - `\<` and `\>` are characters; there is no flag `x`, no `\u`, no repetition of a repetition; counts end at 1000.

use std::ffi::c_char;

use regex_automata::meta::{BuildError, Builder, Config, Regex};
use regex_automata::nfa::thompson::WhichCaptures;
use regex_syntax::ast::{ClassAsciiKind, ErrorKind};
use regex_syntax::hir::{Hir, HirKind};
use regex_syntax::{Error, ParserBuilder};

use crate::border::{guard, Failure, Outcome, Status, Text};

const REPEAT_MAX: u32 = 1000; // RE2's own

/// `struct native_pattern_limits` of the header.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Limits {
    depth: u32,
    parts: usize,
    bytes: usize,
}

/// `struct native_pattern_size` of the header.
#[repr(C)]
pub struct Size {
    parts: usize,
    bytes: usize,
}

pub struct Pattern {
    regex: Regex,
    parts: usize,
}

struct Wrong {
    at: usize, // byte of the source
    what: String,
}

type Read<T> = Result<T, Wrong>;

/// Goes through `source` and writes it down in the crate's syntax.
struct Reader<'a> {
    source: &'a str,
    at: usize,
    out: String,
    origin: Vec<usize>, // of each byte of `out`: where it was in `source`
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn fail<T>(&self, what: &str) -> Read<T> {
        Err(Wrong { at: self.at, what: what.to_string() })
    }

    /// `text` in place of the next `bytes` of the source.
    fn put(&mut self, text: &str, bytes: usize) {
        self.out.push_str(text);
        self.origin.resize(self.out.len(), self.at);
        self.at += bytes;
    }

    fn copy(&mut self, bytes: usize) {
        let text = &self.rest()[..bytes];
        for (index, _) in text.char_indices() {
            self.origin.resize(self.out.len() + index + 1, self.at + index);
        }
        self.put(text, bytes);
    }

    fn read(&mut self) -> Read<()> {
        let mut is_repeated = false;
        while let Some(c) = self.rest().chars().next() {
            let was_repeated = std::mem::take(&mut is_repeated);
            match c {
                '\\' => {
                    self.escape()?;
                }
                '[' => self.set()?,
                '(' => self.group()?,
                '*' | '+' | '?' | '{' => match repetition(self.rest()) {
                    Some(_) if was_repeated => {
                        return self.fail("a repetition of a repetition; put the inner one into (...)");
                    }
                    Some(bytes) if exceeds(&self.rest()[..bytes]) => {
                        return self.fail("a repetition goes up to 1000 times");
                    }
                    Some(bytes) => {
                        self.copy(bytes);
                        is_repeated = true;
                    }
                    None => self.put("\\{", 1),
                },
                _ => self.copy(c.len_utf8()),
            }
        }
        Ok(())
    }

    /// True: a class, not a character.
    fn escape(&mut self) -> Read<bool> {
        let Some(c) = self.rest()[1..].chars().next() else {
            return self.fail("a backslash at the end; write \\\\ for the character");
        };
        let is_class = matches!(c, 'd' | 'D' | 'w' | 'W' | 's' | 'S' | 'p' | 'P');
        match c {
            'd' => self.put("[0-9]", 2),
            'D' => self.put("[^0-9]", 2),
            'w' => self.put("[0-9A-Za-z_]", 2),
            'W' => self.put("[^0-9A-Za-z_]", 2),
            's' => self.put("[\\t\\n\\f\\r ]", 2),
            'S' => self.put("[^\\t\\n\\f\\r ]", 2),
            'b' => self.put("(?-u:\\b)", 2),
            'B' => self.put("(?-u:\\B)", 2),
            '<' | '>' => self.put(if c == '<' { "<" } else { ">" }, 2),
            'u' | 'U' => return self.fail("there is no escape of this letter; \\x{...} is any character"),
            'p' | 'P' | 'x' => {
                let name = &self.rest()[2..];
                let bytes = match name.chars().next() {
                    Some('{') => name.find('}').map_or(name.len(), |end| end + 1),
                    Some(one) if is_class => one.len_utf8(),
                    _ => 0,
                };
                self.copy(2 + bytes);
            }
            _ => self.copy(1 + c.len_utf8()),
        }
        Ok(is_class)
    }

    /// (?flags) and (?flags: have RE2's flags; what else begins with (? is the crate's to judge.
    fn group(&mut self) -> Read<()> {
        let Some(inner) = self.rest().strip_prefix("(?") else {
            self.copy(1);
            return Ok(());
        };
        let flags = &inner[..inner.find([')', ':']).unwrap_or(inner.len())];
        if !flags.starts_with(['P', '<', '=', '!']) && !flags.chars().all(|c| "imsU-".contains(c)) {
            return self.fail("the flags of a group are i, m, s and U");
        }
        self.copy(2);
        Ok(())
    }

    fn set(&mut self) -> Read<()> {
        self.copy(if self.rest().starts_with("[^") { 2 } else { 1 });
        let mut is_first = true;
        while !self.rest().is_empty() && (is_first || !self.rest().starts_with(']')) {
            is_first = false;
            if self.set_item()? {
                continue;
            }
            let mut next = self.rest().chars();
            if next.next() == Some('-') && next.next().is_some_and(|c| c != ']') {
                self.copy(1);
                if self.set_item()? {
                    return self.fail("a range ends with a character, not with a class");
                }
            }
        }
        self.copy(self.rest().len().min(1)); // without a ], the crate says so
        Ok(())
    }

    /// True: a class, not a character.
    fn set_item(&mut self) -> Read<bool> {
        let rest = self.rest();
        let c = rest.chars().next().unwrap_or(']');
        if let Some(inner) = rest.strip_prefix("[:") {
            let name = inner.find(":]").map_or("", |end| &inner[..end]);
            if ClassAsciiKind::from_name(name.strip_prefix('^').unwrap_or(name)).is_none() {
                return self.fail("no such class; there are alnum alpha ascii blank cntrl digit graph lower \
                                  print punct space upper word xdigit; write \\[ for the character");
            }
            self.copy(name.len() + 4);
            return Ok(true);
        }
        if c == '\\' {
            return self.escape();
        }
        if c.is_ascii_punctuation() && c != '<' && c != '>' {
            self.put(&format!("\\{c}"), 1);
        } else {
            self.copy(c.len_utf8());
        }
        Ok(false)
    }
}

/// How many bytes a repetition takes that begins here, its sign of laziness included.
fn repetition(text: &str) -> Option<usize> {
    let bytes = match text.strip_prefix('{') {
        None => 1,
        Some(inner) => {
            let end = inner.find('}')?;
            let (from, to) = inner[..end].split_once(',').unwrap_or((&inner[..end], ""));
            let is_count = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            if from.is_empty() || !is_count(from) || !is_count(to) {
                return None;
            }
            end + 2
        }
    };
    Some(bytes + usize::from(text[bytes..].starts_with('?')))
}

fn exceeds(repetition: &str) -> bool {
    repetition
        .split(|c: char| !c.is_ascii_digit())
        .any(|count| !count.is_empty() && count.parse::<u32>().map_or(true, |count| count > REPEAT_MAX))
}

/// How large it is with its repetitions written out: characters, sets, places and ways to go.
fn parts_of(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Empty => 0,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(_) | HirKind::Look(_) => 1,
        HirKind::Repetition(repetition) => {
            let (min, sub) = (repetition.min as usize, parts_of(&repetition.sub));
            match repetition.max {
                Some(max) => sub.saturating_mul(max as usize).saturating_add(max as usize - min),
                None => sub.saturating_mul(min.max(1)).saturating_add(1),
            }
        }
        HirKind::Capture(capture) => parts_of(&capture.sub),
        HirKind::Concat(all) => all.iter().map(parts_of).fold(0, usize::saturating_add),
        HirKind::Alternation(all) => all.iter().map(parts_of).fold(all.len() - 1, usize::saturating_add),
    }
}

/// What to do about an error of the syntax.
fn mend(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::GroupUnclosed => "; close it with )",
        ErrorKind::GroupUnopened => "; write \\) for the character",
        ErrorKind::ClassUnclosed => "; close it with ]",
        ErrorKind::RepetitionMissing => "; write a backslash before the character",
        ErrorKind::EscapeUnrecognized => "; a letter stands for itself without a backslash",
        ErrorKind::UnsupportedBackreference | ErrorKind::UnsupportedLookAround => ": no search with them is linear",
        _ => "",
    }
}

/// No captures, prefilters and second engines: they only make building slower for an answer of yes or no.
fn build(hir: &Hir, bytes: usize) -> Result<Regex, BuildError> {
    let config = Config::new()
        .which_captures(WhichCaptures::None)
        .auto_prefilter(false)
        .onepass(false)
        .backtrack(false)
        .dfa(false)
        .nfa_size_limit(Some(bytes))
        .hybrid_cache_capacity(bytes);
    Builder::new().configure(config).build_from_hir(hir)
}

impl Pattern {
    fn read(source: &str, limits: Limits) -> Read<Self> {
        let mut reader = Reader { source, at: 0, out: String::new(), origin: Vec::new() };
        reader.read()?;
        let wrong = |offset: usize, what: String| Wrong {
            at: reader.origin.get(offset).copied().unwrap_or(source.len()),
            what,
        };
        let parser = ParserBuilder::new().nest_limit(limits.depth).build().parse(&reader.out);
        let hir = parser.map_err(|error| match error {
            Error::Parse(error) => wrong(error.span().start.offset, format!("{}{}", error.kind(), mend(error.kind()))),
            Error::Translate(error) => wrong(error.span().start.offset, error.kind().to_string()),
            other => wrong(0, other.to_string()),
        })?;
        let parts = parts_of(&hir);
        if parts > limits.parts {
            return Err(wrong(0, format!("more than {} parts, its repetitions written out", limits.parts)));
        }
        let regex = build(&hir, limits.bytes).map_err(|error| match error.size_limit() {
            Some(limit) => wrong(0, format!("more than {limit} bytes once it is compiled; make its counts smaller")),
            None => wrong(0, error.to_string()),
        })?;
        Ok(Self { regex, parts })
    }

    /// The error says at which character (from 1) what is wrong.
    pub fn new(source: &str, limits: Limits) -> Outcome<Self> {
        Self::read(source, limits).map_err(|wrong| {
            let character = source[..wrong.at].chars().count() + 1;
            Failure::new(Status::Invalid, format!("at its character {character}: {}", wrong.what))
        })
    }

    pub fn size(&self) -> Size {
        Size { parts: self.parts, bytes: self.regex.memory_usage() }
    }

    pub fn is_match(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// # Safety
/// As the header says: pointers are valid for the call; `out`, `size` and `error` are places for one of theirs.
#[no_mangle]
pub unsafe extern "C" fn native_pattern_create(
    source: Text,
    limits: *const Limits,
    out: *mut *mut Pattern,
    size: *mut Size,
    error: *mut *mut c_char,
) -> Status {
    guard(error, || {
        let pattern = Pattern::new(source.as_str("the pattern")?, *limits)?;
        *size = pattern.size();
        *out = Box::into_raw(Box::new(pattern));
        Ok(Status::Ok)
    })
}

/// # Safety
/// `pattern` is NULL or came from `native_pattern_create`, and no other thread uses it any more.
#[no_mangle]
pub unsafe extern "C" fn native_pattern_destroy(pattern: *mut Pattern) {
    if !pattern.is_null() {
        guard(std::ptr::null_mut(), || {
            drop(Box::from_raw(pattern));
            Ok(Status::Ok)
        });
    }
}

/// # Safety
/// As the header says.
#[no_mangle]
pub unsafe extern "C" fn native_pattern_matches(
    pattern: *const Pattern,
    text: Text,
    out: *mut bool,
    error: *mut *mut c_char,
) -> Status {
    guard(error, || {
        *out = (*pattern).is_match(text.as_str("the text")?);
        Ok(Status::Ok)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { depth: 160, parts: 4096, bytes: 1 << 20 };

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern, LIMITS).unwrap_or_else(|failure| panic!("{pattern}: {}", failure.message)).is_match(text)
    }

    #[test]
    fn what_the_crate_reads_otherwise_is_read_as_by_re2() {
        for (pattern, hit, miss) in [
            (r"^\w\d\s$", "a1 ", "é1 "),
            (r"^[\W]$", "é", "a"),
            (r"^[^\d\s]$", "é", "1"),
            (r"\bé", "aé", "éé"),
            (r"^[a[b]]$", "[]", "a"),
            (r"^[+--]$", ",", "."),
            (r"^[a&&b]$", "&", "c"),
            (r"^[a~~b]$", "~", "c"),
            (r"^[\d-z]$", "-", "y"),
            (r"^[[.a.]]$", "a]", "a"),
            (r"^[<>]\<\>$", "><>", "<"),
            (r"^a{,2}$", "a{,2}", "aa"),
            (r"^{.*}$", "{x}", "x"),
            (r"^\x{41}[\x41-\x43]$", "AC", "AD"),
            (r"^\p{Greek}\pL\PL$", "αé1", "aé1"),
            (r"^[\pL-]$", "-", "1"),
            (r"(?i)^É$", "é", "e"),
        ] {
            assert!(matches(pattern, hit), "{pattern} misses {hit}");
            assert!(!matches(pattern, miss), "{pattern} matches {miss}");
        }
    }

    #[test]
    fn what_only_the_crate_knows_is_refused() {
        for pattern in [r"(?x)a b", r"\u0041", r"a**", r"a{2}{3}", r"a{1001}", r"[a-\d]", r"[[:letter:]]"] {
            assert!(Pattern::new(pattern, LIMITS).is_err(), "{pattern}");
        }
    }

    #[test]
    fn an_error_is_placed_in_the_pattern_as_it_was_written() {
        let failure = Pattern::new(r"é\w\d(a", LIMITS).err().unwrap();
        assert!(failure.message.starts_with("at its character 6: unclosed group"), "{}", failure.message);
    }
}
