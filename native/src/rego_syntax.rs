//! Old (v0) and new (v1) Rego side by side: which of the two a module is written in, found per module.
//!
//! A module that parses as v1 is v1.  Else it is v0, where `in`, `every`, `if` and `contains` are keywords only after
//! an import; policies in the wild forget it, so the imports that make the module parse are added.  They go onto a
//! blank line below `package` (or behind it, when there is none), so every line keeps its number.

use regorus::unstable::{Lexer, TokenKind};
use regorus::{Engine, Source};

use crate::border::{Failure, Outcome, Status};

const FUTURE_KEYWORDS: [&str; 4] = ["contains", "every", "if", "in"];

/// What a v1 parse says of an old rule.
const IF_REQUIRED: &str = "`if` keyword is required before rule body";
const IF: &str = "if ";
const RULES_MENDED_MAX: usize = 256;

pub struct Module {
    pub name: String,
    pub text: String,
    pub is_v0: bool,
}

/// One error as `file:line:column: message`, from the interpreter's drawing of it.
pub fn error_text(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let mut place = None;
    let mut message = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("--> ") {
            place.get_or_insert_with(|| rest.trim().to_string());
        } else if let Some(rest) = line.strip_prefix("error: ") {
            message.get_or_insert_with(|| rest.trim().to_string());
        }
    }
    match (place, message) {
        (Some(place), Some(message)) => format!("{place}: {message}"),
        _ => text.trim().to_string(),
    }
}

fn parse(module: &Module) -> Result<(), anyhow::Error> {
    let mut engine = Engine::new();
    engine.set_rego_v0(module.is_v0);
    engine.add_policy(module.name.clone(), module.text.clone()).map(|_| ())
}

/// How far a failed parse came, to report the attempt that understood most.
fn error_position(text: &str, name: &str) -> (u32, u32) {
    let mut numbers = text
        .strip_prefix(name)
        .unwrap_or("")
        .split(':')
        .skip(1)
        .map_while(|part| part.trim().parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

struct Outline {
    package_end: usize,         // byte offset behind the package path
    package_line: u32,
    keywords: Vec<&'static str>,    // future keywords that appear as bare words
}

fn outline(name: &str, text: &str) -> Option<Outline> {
    let source = Source::from_contents(name.to_string(), text.to_string()).ok()?;
    let mut lexer = Lexer::new(&source);
    let mut found = Outline { package_end: 0, package_line: 0, keywords: Vec::new() };
    let mut is_package = false;
    let mut previous = String::new();
    loop {
        let token = lexer.next_token().ok()?;
        let span = &token.1;
        let word = match token.0 {
            TokenKind::Eof => break,
            TokenKind::String | TokenKind::RawString => "\"",
            _ => span.text(),
        };
        if found.package_line == 0 && word == "package" {
            is_package = true;
        } else if is_package {
            // The path goes on while a dot or bracket joins it: `a.b["c"]`.
            let joins = matches!(word, "." | "[" | "]") || matches!(previous.as_str(), "package" | "." | "[");
            if joins {
                found.package_end = span.end as usize;
                found.package_line = span.line;
            } else {
                is_package = false;
            }
        }
        if !is_package && previous != "." && previous != "package" {
            if let Some(keyword) = FUTURE_KEYWORDS.iter().find(|keyword| **keyword == word) {
                if !found.keywords.contains(keyword) {
                    found.keywords.push(keyword);
                }
            }
        }
        previous = word.to_string();
    }
    (found.package_line > 0).then_some(found)
}

fn with_imports(text: &str, outline: &Outline, keywords: &[&str]) -> String {
    let imports = |separator: &str| {
        let lines: Vec<String> = keywords.iter().map(|word| format!("import future.keywords.{word}")).collect();
        lines.join(separator)
    };
    let mut offset = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let content = line.trim();
        if index >= outline.package_line as usize {
            if content.is_empty() {
                return format!("{}{}{}", &text[..offset], imports(" "), &text[offset..]);
            }
            if !content.starts_with('#') {
                break;
            }
        }
        offset += line.len();
    }
    let (head, tail) = text.split_at(outline.package_end);
    format!("{head} {}{tail}", imports(" "))
}

/// The interpreter says of a broken statement in an old rule only where the rule's body begins.  With `if` before the
/// bodies it parses them as v1 and names the place: the error of that reading, its column put right.
fn precise_error(name: &str, text: &str) -> Option<String> {
    let mut lines: Vec<String> = text.split('\n').map(str::to_string).collect();
    let mut inserted = vec![Vec::new(); lines.len()];
    for _ in 0..RULES_MENDED_MAX {
        let module = Module { name: name.to_string(), text: lines.join("\n"), is_v0: false };
        let message = error_text(&parse(&module).err()?);
        let (line, column) = error_position(&message, name);
        let index = (line as usize).checked_sub(1)?;
        let offset = (column as usize).checked_sub(1)?;
        if !message.ends_with(IF_REQUIRED) {
            let before = inserted.get(index)?.iter().filter(|at| **at < offset).count();
            let (_, said) = message.strip_prefix(name)?.strip_prefix(&format!(":{line}:{column}"))?.split_once(' ')?;
            return Some(format!("{name}:{line}:{}: {said}", offset + 1 - IF.len() * before));
        }
        let at = lines.get(index)?.char_indices().nth(offset).map(|(at, _)| at)?;
        lines[index].insert_str(at, IF);
        inserted[index].push(offset);
    }
    None
}

/// The module as the interpreter can load it, or the error of the attempt that came furthest.
pub fn normalise(name: &str, text: &str) -> Outcome<Module> {
    let mut attempt = Module { name: name.to_string(), text: text.to_string(), is_v0: false };
    let Err(error) = parse(&attempt) else { return Ok(attempt) };
    let mut best = error_text(&error);
    let is_old = best.ends_with(IF_REQUIRED);
    if is_old {
        best = String::new();       // it is an old module, so its own error counts
    }

    let outline = outline(name, text);
    let keywords = outline.as_ref().map_or(&[][..], |outline| &outline.keywords);
    attempt.is_v0 = true;
    // All keywords first, then fewer: in old policies a word such as `in` may be a variable's name.  (Not when there
    // is an `if`: nobody calls a variable that, and the interpreter warns on stderr about each attempt without it.)
    let all = (1u32 << keywords.len()) - 1;
    let mut subsets: Vec<u32> = if keywords.contains(&"if") { vec![all] } else { (0..=all).collect() };
    subsets.sort_by_key(|subset| std::cmp::Reverse(subset.count_ones()));
    for subset in subsets {
        let chosen: Vec<&str> = keywords
            .iter()
            .enumerate()
            .filter(|(index, _)| subset & (1 << index) != 0)
            .map(|(_, word)| *word)
            .collect();
        attempt.text = match &outline {
            Some(outline) if !chosen.is_empty() => with_imports(text, outline, &chosen),
            _ => text.to_string(),
        };
        let Err(error) = parse(&attempt) else { return Ok(attempt) };
        let message = error_text(&error);
        if best.is_empty() || error_position(&message, name) > error_position(&best, name) {
            best = message;
        }
    }
    if is_old {
        best = precise_error(name, text).unwrap_or(best);
    }
    Err(Failure::new(Status::Invalid, best))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "package a.b # note\n\ndefault allow = false\n\nallow {\n    input.x in [1, 2]\n}\n";

    #[test]
    fn old_module_gets_its_import_on_the_blank_line() {
        let module = normalise("p.rego", OLD).ok().expect("it parses");
        assert!(module.is_v0);
        assert_eq!(module.text, OLD.replacen("\n\n", "\nimport future.keywords.in\n", 1));
    }

    #[test]
    fn import_goes_behind_the_package_when_no_line_is_blank() {
        let text = "package a.b # note\nallow { input.x in [1, 2] }\n";
        let module = normalise("p.rego", text).ok().expect("it parses");
        assert_eq!(module.text, text.replacen("a.b ", "a.b import future.keywords.in ", 1));
    }

    #[test]
    fn new_module_stays_as_it_is() {
        let text = "package a\nallow if input.x in [1]\n";
        let module = normalise("p.rego", text).ok().expect("it parses");
        assert!(!module.is_v0);
        assert_eq!(module.text, text);
    }

    #[test]
    fn a_variable_named_like_a_keyword_stays_a_variable() {
        let text = "package a\n\nallow {\n    in := input.x\n    in == 1\n}\n";
        let module = normalise("p.rego", text).ok().expect("it parses");
        assert!(module.is_v0);
        assert_eq!(module.text, text);
    }

    #[test]
    fn error_names_file_line_and_column() {
        let error = normalise("p.rego", "package a\n\nok { true }\n\nallow { input.x == }\n").err().expect("it fails");
        assert_eq!(error.message, "p.rego:5:20: expecting expression");
    }
}
