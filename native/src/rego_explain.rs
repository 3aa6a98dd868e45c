//! Questions about a policy that its value alone does not answer: which definitions decided, what input it reads.

use std::collections::BTreeSet;

use regorus::unstable::{BoolOp, Expr, Literal, Module, Parser, Query, Ref, Rule, RuleAssign, RuleHead, BUILTINS};
use regorus::{Engine, Value};

pub struct Decided {
    pub module: String,
    pub line: u32,
    pub is_default: bool,
}

/// A path below `input`, compared: only whether it holds can matter, not the value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Comparison {
    pub path: Vec<String>,
    pub operator: &'static str,
    pub with: Operand,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operand {
    Number(i64),
    Text(String),
    Path(Vec<String>),
}

#[derive(Default)]
pub struct Inputs {
    pub paths: BTreeSet<Vec<String>>,       // all that is read
    pub values: BTreeSet<Vec<String>>,      // those of them that are read elsewhere than in `comparisons`
    pub comparisons: BTreeSet<Comparison>,
    pub has_with: bool,                     // some expression is evaluated for another input than the caller's
    pub is_volatile: bool,
}

/// Builtins that may answer differently for the same input.
const VOLATILE: [&str; 5] = ["time.now_ns", "rand.intn", "uuid.rfc4122", "opa.runtime", "http.send"];

fn path_of(refr: &Ref<Expr>) -> Vec<String> {
    Parser::get_path_ref_components(refr)
        .map(|spans| spans.iter().map(|span| span.text().to_string()).collect())
        .unwrap_or_default()
}

fn head_ref(head: &RuleHead) -> &Ref<Expr> {
    match head {
        RuleHead::Compr { refr, .. } | RuleHead::Set { refr, .. } | RuleHead::Func { refr, .. } => refr,
    }
}

fn value_at<'a>(data: &'a Value, path: &[String]) -> &'a Value {
    path.iter().skip(1).fold(data, |value, part| &value[part.as_str()])
}

/// The definitions of `rule` that hold for the engine's input, each evaluated alone; its default when none does.
pub fn deciding_rules(engine: &Engine, rule: &str) -> Result<Vec<Decided>, anyhow::Error> {
    let modules = engine.clone().get_modules().clone();
    let mut decided = Vec::new();
    let mut defaults = Vec::new();
    for module in &modules {
        let mut package = vec!["data".to_string()];
        package.extend(path_of(&module.package.refr));
        for definition in &module.policy {
            let (refr, is_default) = match definition.as_ref() {
                Rule::Spec { head: RuleHead::Func { .. }, .. } => continue,
                Rule::Spec { head, .. } => (head_ref(head), false),
                Rule::Default { refr, .. } => (refr, true),
            };
            let mut path = package.clone();
            path.extend(path_of(refr));
            if path.join(".") != rule {
                continue;
            }
            let span = definition.span();
            let found = Decided { module: span.source.file().clone(), line: span.line, is_default };
            if is_default {
                defaults.push(found);
                continue;
            }
            let data = engine.clone().eval_rule_in_module(module, definition, false)?;
            if !matches!(value_at(&data, &path), Value::Undefined | Value::Bool(false)) {
                decided.push(found);
            }
        }
    }
    Ok(if decided.is_empty() { defaults } else { decided })
}

/// `input.user["role"]` -> user, role; None for all that is not a constant path below the input.
fn input_path(expr: &Expr) -> Option<Vec<String>> {
    match expr {
        Expr::Var { span, .. } => (span.text() == "input").then(Vec::new),
        Expr::RefDot { refr, field, .. } => {
            let mut path = input_path(refr)?;
            path.push(field.0.text().to_string());
            Some(path)
        }
        Expr::RefBrack { refr, index, .. } => {
            let Expr::String { value: Value::String(text), .. } = index.as_ref() else { return None };
            let mut path = input_path(refr)?;
            path.push(text.to_string());
            Some(path)
        }
        _ => None,
    }
}

/// What a path may be compared with: an integer, a text, another path.  Anything else makes it an ordinary read.
fn operand(expr: &Expr) -> Option<Operand> {
    match expr {
        Expr::Number { value: Value::Number(number), .. } => number.as_i64().map(Operand::Number),
        Expr::String { value: Value::String(text), .. } => Some(Operand::Text(text.to_string())),
        other => input_path(other).map(Operand::Path),
    }
}

/// The operator as written, and as it reads from right to left.
fn operators(operator: &BoolOp) -> (&'static str, &'static str) {
    match operator {
        BoolOp::Lt => ("<", ">"),
        BoolOp::Le => ("<=", ">="),
        BoolOp::Eq => ("==", "=="),
        BoolOp::Ge => (">=", "<="),
        BoolOp::Gt => (">", "<"),
        BoolOp::Ne => ("!=", "!="),
    }
}

/// The comparison with its path on the left.
fn comparison(operator: &BoolOp, left: &Expr, right: &Expr) -> Option<Comparison> {
    let (straight, reversed) = operators(operator);
    if let Some(path) = input_path(left) {
        return Some(Comparison { path, operator: straight, with: operand(right)? });
    }
    Some(Comparison { path: input_path(right)?, operator: reversed, with: operand(left)? })
}

/// Walks modules and notes what they read and call.
struct Reader {
    inputs: Inputs,
    calls: Vec<Ref<Expr>>,
}

impl Reader {
    /// A reference such as `input.user.role` or `input.items[i].name`: its constant head is the path that is read.
    fn reference(&mut self, expr: &Expr, tail: &mut Vec<String>) {
        match expr {
            Expr::RefDot { refr, field, .. } => {
                tail.push(field.0.text().to_string());
                self.reference(refr, tail);
            }
            Expr::RefBrack { refr, index, .. } => {
                match index.as_ref() {
                    Expr::String { value: Value::String(text), .. } => tail.push(text.to_string()),
                    other => {
                        tail.clear();       // what lies behind a variable index is read as a whole
                        self.expression(other);
                    }
                }
                self.reference(refr, tail);
            }
            Expr::Var { span, .. } => {
                if span.text() == "input" {
                    tail.reverse();
                    self.inputs.values.insert(tail.clone());
                    self.inputs.paths.insert(std::mem::take(tail));
                }
            }
            other => self.expression(other),
        }
    }

    fn compared(&mut self, operator: &BoolOp, left: &Expr, right: &Expr) {
        let Some(found) = comparison(operator, left, right) else {
            self.expression(left);
            self.expression(right);
            return;
        };
        self.inputs.paths.insert(found.path.clone());
        if let Operand::Path(path) = &found.with {
            self.inputs.paths.insert(path.clone());
        }
        self.inputs.comparisons.insert(found);
    }

    fn expressions(&mut self, list: &[Ref<Expr>]) {
        for expr in list {
            self.expression(expr);
        }
    }

    fn expression(&mut self, expr: &Expr) {
        match expr {
            Expr::String { .. }
            | Expr::RawString { .. }
            | Expr::Number { .. }
            | Expr::Bool { .. }
            | Expr::Null { .. } => {}
            Expr::Var { .. } | Expr::RefDot { .. } | Expr::RefBrack { .. } => self.reference(expr, &mut Vec::new()),
            Expr::Array { items, .. } | Expr::Set { items, .. } => self.expressions(items),
            Expr::Object { fields, .. } => {
                for (_, key, value) in fields {
                    self.expression(key);
                    self.expression(value);
                }
            }
            Expr::ArrayCompr { term, query, .. } | Expr::SetCompr { term, query, .. } => {
                self.expression(term);
                self.query(query);
            }
            Expr::ObjectCompr { key, value, query, .. } => {
                self.expression(key);
                self.expression(value);
                self.query(query);
            }
            Expr::Call { fcn, params, .. } => {
                self.inputs.is_volatile |= VOLATILE.contains(&path_of(fcn).join(".").as_str());
                self.calls.push(fcn.clone());
                self.expression(fcn);
                self.expressions(params);
            }
            Expr::UnaryExpr { expr, .. } => self.expression(expr),
            Expr::BoolExpr { op, lhs, rhs, .. } => self.compared(op, lhs, rhs),
            Expr::BinExpr { lhs, rhs, .. }
            | Expr::ArithExpr { lhs, rhs, .. }
            | Expr::AssignExpr { lhs, rhs, .. } => {
                self.expression(lhs);
                self.expression(rhs);
            }
            Expr::Membership { key, value, collection, .. } => {
                if let Some(key) = key {
                    self.expression(key);
                }
                self.expression(value);
                self.expression(collection);
            }
        }
    }

    fn query(&mut self, query: &Query) {
        for statement in &query.stmts {
            match &statement.literal {
                Literal::SomeVars { .. } => {}
                Literal::SomeIn { key, value, collection, .. } => {
                    if let Some(key) = key {
                        self.expression(key);
                    }
                    self.expression(value);
                    self.expression(collection);
                }
                Literal::Expr { expr, .. } | Literal::NotExpr { expr, .. } => self.expression(expr),
                Literal::Every { domain, query, .. } => {
                    self.expression(domain);
                    self.query(query);
                }
            }
            for modifier in &statement.with_mods {
                self.inputs.has_with = true;
                self.expression(&modifier.refr);
                self.expression(&modifier.r#as);
            }
        }
    }

    fn assign(&mut self, assign: Option<&RuleAssign>) {
        if let Some(assign) = assign {
            self.expression(&assign.value);
        }
    }

    fn rule(&mut self, rule: &Rule) {
        match rule {
            Rule::Default { value, .. } => self.expression(value),
            Rule::Spec { head, bodies, .. } => {
                self.expression(head_ref(head));
                match head {
                    RuleHead::Compr { assign, .. } => self.assign(assign.as_ref()),
                    RuleHead::Set { key, .. } => {
                        if let Some(key) = key {
                            self.expression(key);
                        }
                    }
                    RuleHead::Func { args, assign, .. } => {
                        self.expressions(args);
                        self.assign(assign.as_ref());
                    }
                }
                for body in bodies {
                    self.assign(body.assign.as_ref());
                    self.query(&body.query);
                }
            }
        }
    }
}

fn read(modules: &[Ref<Module>]) -> Reader {
    let mut reader = Reader { inputs: Inputs::default(), calls: Vec::new() };
    for module in modules {
        for import in &module.imports {
            reader.expression(&import.refr);        // `import input.user` hides the root behind a name
        }
        for rule in &module.policy {
            reader.rule(rule);
        }
    }
    reader
}

/// Every path below `input` that the modules can read; the empty path stands for all of it.
pub fn input_paths(modules: &[Ref<Module>]) -> Inputs {
    read(modules).inputs
}

/// The first call of a function that is neither built in nor defined by a module.  The interpreter would notice it only
/// when an evaluation comes by, too late to refuse the policy.  Own functions are compared by their last name.
pub fn undefined_call(modules: &[Ref<Module>]) -> Option<String> {
    let mut own = BTreeSet::new();
    for rule in modules.iter().flat_map(|module| &module.policy) {
        match rule.as_ref() {
            Rule::Spec { head: RuleHead::Func { refr, .. }, .. } | Rule::Default { refr, .. } => {
                own.extend(path_of(refr).pop());
            }
            Rule::Spec { .. } => {}
        }
    }
    read(modules).calls.iter().find_map(|function| {
        let path = path_of(function);
        let name = path.join(".");
        let is_known = name == "print"
            || BUILTINS.contains_key(name.as_str())
            || path.last().is_some_and(|last| own.contains(last));
        let span = function.span();
        (!is_known).then(|| {
            format!("{}:{}:{}: function `{name}` is not defined", span.source.file(), span.line, span.col)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs_of(text: &str) -> Inputs {
        let mut engine = Engine::new();
        engine.add_policy("p.rego".to_string(), text.to_string()).expect("it parses");
        input_paths(engine.get_modules())
    }

    fn path(text: &str) -> Vec<String> {
        text.split('.').filter(|part| !part.is_empty()).map(str::to_string).collect()
    }

    #[test]
    fn constant_paths_are_found() {
        let inputs = inputs_of("package a\nallow if {\n input.user[\"role\"] == \"x\"\n not input.n > count(input.list)\n}\n");
        assert_eq!(inputs.paths, BTreeSet::from([path("user.role"), path("n"), path("list")]));
        assert!(!inputs.is_volatile);
    }

    #[test]
    fn what_lies_behind_a_variable_is_read_as_a_whole() {
        let inputs = inputs_of("package a\nallow if { some i; input.items[i].name == input.wanted }\n");
        assert_eq!(inputs.paths, BTreeSet::from([path("items"), path("wanted")]));
    }

    #[test]
    fn the_bare_input_is_the_empty_path() {
        assert!(inputs_of("package a\nx := json.marshal(input)\n").paths.contains(&Vec::new()));
    }

    #[test]
    fn an_imported_path_counts() {
        let inputs = inputs_of("package a\nimport input.user\nallow if user.role == \"x\"\n");
        assert!(inputs.paths.contains(&path("user")));
    }

    fn comparison(path_text: &str, operator: &'static str, with: Operand) -> Comparison {
        Comparison { path: path(path_text), operator, with }
    }

    #[test]
    fn comparisons_with_constants_are_told_apart_from_reads() {
        let inputs = inputs_of(
            "package a\nallow if {\n input.n > 1000\n \"x\" != input.user[\"role\"]\n input.n == input.m\n input.k < 1.5\n}\n",
        );
        assert_eq!(
            inputs.comparisons,
            BTreeSet::from([
                comparison("n", ">", Operand::Number(1000)),
                comparison("user.role", "!=", Operand::Text("x".to_string())),
                comparison("n", "==", Operand::Path(path("m"))),
            ])
        );
        assert_eq!(inputs.values, BTreeSet::from([path("k")]));
        assert_eq!(inputs.paths.len(), 4);
    }

    #[test]
    fn the_operator_turns_round_with_its_sides() {
        let inputs = inputs_of("package a\nallow if 1000 < input.n\n");
        assert_eq!(inputs.comparisons, BTreeSet::from([comparison("n", ">", Operand::Number(1000))]));
        assert!(inputs.values.is_empty());
    }

    #[test]
    fn a_path_that_is_also_handed_on_is_a_value() {
        let inputs = inputs_of("package a\nenough(n) if n > 5\nallow if { input.n > 1; enough(input.n) }\n");
        assert_eq!(inputs.values, BTreeSet::from([path("n")]));
        assert_eq!(inputs.comparisons.len(), 1);
    }

    #[test]
    fn a_comparison_behind_a_variable_is_a_read() {
        let inputs = inputs_of("package a\nallow if { some i; input.items[i].n > 5 }\n");
        assert_eq!(inputs.values, BTreeSet::from([path("items")]));
        assert!(inputs.comparisons.is_empty());
    }

    #[test]
    fn another_input_is_noticed() {
        assert!(inputs_of("package a\nb if input.x > 1\nallow if b with input.x as 5\n").has_with);
        assert!(!inputs_of("package a\nallow if input.x > 1\n").has_with);
    }

    #[test]
    fn asking_for_the_time_is_volatile() {
        assert!(inputs_of("package a\nallow if time.now_ns() > input.t\n").is_volatile);
        assert!(!inputs_of("package a\nallow if time.parse_rfc3339_ns(input.t) > 5\n").is_volatile);
    }
}
