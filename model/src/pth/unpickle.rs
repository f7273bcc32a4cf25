//! A pickle machine that builds values and runs nothing.

use std::{collections::HashMap, sync::Arc};

use tch::Kind;

use super::{
    Problem,
    globals::{self, Global},
    opcode,
    storage::{Storage, TensorRef},
    value::{Dict, TensorValue, Value},
};

/// Most steps of one pickle. NotaGen-large with its optimizer takes 60 thousand.
const STEP_LIMIT: usize = 4 << 20;

/// Most values of the finished tree: a pickle may name one list many times over.
const VALUE_LIMIT: u64 = 4 << 20;

/// Deepest nesting of the finished tree.
const DEPTH_LIMIT: u64 = 128;

/// Finds a storage: its key, its element type, the bytes that it has to hold.
pub(super) type Storages<'a> = dyn FnMut(&str, Kind, u64) -> Result<Arc<Storage>, Problem> + 'a;

/// Reads the object tree of a pickle.
pub(super) fn unpickle(bytes: &[u8], storages: &mut Storages<'_>) -> Result<Value, Problem> {
    let mut machine = Machine {
        bytes,
        at: 0,
        next: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        lists: Vec::new(),
        dicts: Vec::new(),
        work: 0,
        storages,
    };
    let top = machine.run()?;
    let mut left = VALUE_LIMIT;
    machine.finish(&top, 0, &mut left)
}

/// Something on the stack. Lists and dicts are places, since a pickle fills them after naming them;
/// tuples are places too, so that a deep nest of them is not dropped by recursion.
#[derive(Debug, Clone)]
enum Item {
    Plain(Value),
    List(usize),
    Tuple(usize),
    Dict(usize),
    Tensor(Arc<TensorRef>),
    Storage(Arc<Storage>, Kind),
    Global(Global),
}

impl Item {
    fn what(&self) -> &'static str {
        match self {
            Item::Plain(Value::Str(_)) => "a text",
            Item::Plain(Value::Int(_) | Value::BigInt(_)) => "a whole number",
            Item::Plain(_) => "a plain value",
            Item::List(_) => "a list",
            Item::Tuple(_) => "a tuple",
            Item::Dict(_) => "a dict",
            Item::Tensor(_) => "a tensor",
            Item::Storage(..) => "a storage",
            Item::Global(_) => "a class or function",
        }
    }
}

struct Machine<'a, 'b> {
    bytes: &'a [u8],
    /// Where the current opcode is, for messages.
    at: usize,
    next: usize,
    stack: Vec<Item>,
    marks: Vec<usize>,
    memo: HashMap<u32, Item>,
    /// Lists and tuples.
    lists: Vec<Vec<Item>>,
    dicts: Vec<(Vec<(Item, Item)>, bool)>,
    /// Steps so far, a copied item counting as one.
    work: usize,
    storages: &'a mut Storages<'b>,
}

type Outcome<T> = Result<T, Problem>;

impl Machine<'_, '_> {
    fn wrong<T>(&self, what: impl Into<String>) -> Outcome<T> {
        Err(Problem::Pickle { at: self.at, what: what.into() })
    }

    fn run(&mut self) -> Outcome<Item> {
        while self.work < STEP_LIMIT {
            self.work += 1;
            self.at = self.next;
            let opcode = self.byte()?;
            if opcode == opcode::STOP {
                return self.pop();
            }
            self.step(opcode)?;
        }
        Err(Problem::Limit { what: "data.pkl takes too many steps", limit: STEP_LIMIT as u64 })
    }

    fn step(&mut self, opcode: u8) -> Outcome<()> {
        match opcode {
            opcode::PROTO => {
                let protocol = self.byte()?;
                if protocol > 5 {
                    return self.wrong(format!("pickle protocol {protocol} is not known"));
                }
            }
            opcode::FRAME => {
                self.take(8)?;
            }
            opcode::MARK => self.marks.push(self.stack.len()),
            opcode::POP => {
                self.pop()?;
            }
            opcode::POP_MARK => {
                self.pop_mark()?;
            }
            opcode::DUP => {
                let top = self.pop()?;
                self.stack.push(top.clone());
                self.stack.push(top);
            }
            opcode::NONE => self.plain(Value::None),
            opcode::NEWTRUE => self.plain(Value::Bool(true)),
            opcode::NEWFALSE => self.plain(Value::Bool(false)),
            opcode::BININT => {
                let number = i32::from_le_bytes(self.array()?);
                self.plain(Value::Int(number.into()));
            }
            opcode::BININT1 => {
                let number = self.byte()?;
                self.plain(Value::Int(number.into()));
            }
            opcode::BININT2 => {
                let number = u16::from_le_bytes(self.array()?);
                self.plain(Value::Int(number.into()));
            }
            opcode::LONG1 => {
                let len = self.byte()?.into();
                let long = Value::from_long(self.take(len)?);
                self.plain(long);
            }
            opcode::LONG4 => {
                let len = self.length4()?;
                let long = Value::from_long(self.take(len)?);
                self.plain(long);
            }
            opcode::BINFLOAT => {
                let number = f64::from_be_bytes(self.array()?);
                self.plain(Value::Float(number));
            }
            opcode::SHORT_BINUNICODE | opcode::SHORT_BINSTRING => {
                let len = self.byte()?.into();
                self.text(len)?;
            }
            opcode::BINUNICODE | opcode::BINSTRING => {
                let len = self.length4()?;
                self.text(len)?;
            }
            opcode::BINUNICODE8 => {
                let len = self.length8()?;
                self.text(len)?;
            }
            opcode::SHORT_BINBYTES => {
                let len = self.byte()?.into();
                self.raw(len)?;
            }
            opcode::BINBYTES => {
                let len = self.length4()?;
                self.raw(len)?;
            }
            opcode::BINBYTES8 => {
                let len = self.length8()?;
                self.raw(len)?;
            }
            opcode::EMPTY_LIST => {
                let list = self.new_list(Vec::new());
                self.stack.push(Item::List(list));
            }
            opcode::EMPTY_TUPLE => self.tuple(Vec::new()),
            opcode::TUPLE1 => self.tuple_of(1)?,
            opcode::TUPLE2 => self.tuple_of(2)?,
            opcode::TUPLE3 => self.tuple_of(3)?,
            opcode::TUPLE => {
                let items = self.pop_mark()?;
                self.tuple(items);
            }
            opcode::EMPTY_DICT => self.new_dict(Vec::new(), false),
            opcode::APPEND => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            opcode::APPENDS => {
                let items = self.pop_mark()?;
                self.extend(items)?;
            }
            opcode::SETITEM => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(vec![key, value])?;
            }
            opcode::SETITEMS => {
                let items = self.pop_mark()?;
                self.set(items)?;
            }
            opcode::BINGET => {
                let index = self.byte()?.into();
                self.get(index)?;
            }
            opcode::LONG_BINGET => {
                let index = u32::from_le_bytes(self.array()?);
                self.get(index)?;
            }
            opcode::BINPUT => {
                let index = self.byte()?.into();
                self.put(index)?;
            }
            opcode::LONG_BINPUT => {
                let index = u32::from_le_bytes(self.array()?);
                self.put(index)?;
            }
            opcode::MEMOIZE => {
                let index = self.memo.len() as u32;
                self.put(index)?;
            }
            opcode::GLOBAL => {
                let module = self.line()?;
                let name = self.line()?;
                let global = globals::resolve(&module, &name, self.at)?;
                self.stack.push(Item::Global(global));
            }
            opcode::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Item::Plain(Value::Str(name)), Item::Plain(Value::Str(module))) = (name, module) else {
                    return self.wrong("the name of a class or function is not a text");
                };
                let global = globals::resolve(&module, &name, self.at)?;
                self.stack.push(Item::Global(global));
            }
            opcode::REDUCE | opcode::NEWOBJ => {
                let arguments = self.pop()?;
                let Item::Tuple(arguments) = arguments else {
                    return self.wrong("a call without a tuple of arguments");
                };
                let arguments = self.arguments(arguments)?;
                let callee = self.pop()?;
                let Item::Global(global) = callee else {
                    return self.wrong(format!("a call of {}", callee.what()));
                };
                let made = self.call(global, &arguments)?;
                self.stack.push(made);
            }
            // What an OrderedDict or a tensor carries besides its content (`_metadata`, hooks) is
            // passed over.
            opcode::BUILD => {
                self.pop()?;
                let target = self.pop()?;
                if !matches!(target, Item::Dict(_) | Item::Tensor(_)) {
                    return self.wrong(format!("a state for {}", target.what()));
                }
                self.stack.push(target);
            }
            opcode::BINPERSID => {
                let storage = self.persistent()?;
                self.stack.push(storage);
            }
            other => return Err(Problem::Opcode { at: self.at, name: opcode::name(other) }),
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> Outcome<&[u8]> {
        let end = self.next.checked_add(len).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return self.wrong("the pickle ends too early");
        };
        let taken = &self.bytes[self.next..end];
        self.next = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Outcome<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn length4(&mut self) -> Outcome<usize> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn length8(&mut self) -> Outcome<usize> {
        Ok(usize::try_from(u64::from_le_bytes(self.array()?)).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> Outcome<String> {
        let rest = &self.bytes[self.next..];
        let Some(len) = rest.iter().take(1024).position(|byte| *byte == b'\n') else {
            return self.wrong("the name of a class or function has no end");
        };
        let line = String::from_utf8_lossy(&rest[..len]).into_owned();
        self.next += len + 1;
        Ok(line)
    }

    fn text(&mut self, len: usize) -> Outcome<()> {
        let Ok(text) = std::str::from_utf8(self.take(len)?).map(Arc::from) else {
            return self.wrong("a text is not UTF-8");
        };
        self.plain(Value::Str(text));
        Ok(())
    }

    fn raw(&mut self, len: usize) -> Outcome<()> {
        let bytes = self.take(len)?.into();
        self.plain(Value::Bytes(bytes));
        Ok(())
    }

    fn plain(&mut self, value: Value) {
        self.stack.push(Item::Plain(value));
    }

    fn pop(&mut self) -> Outcome<Item> {
        if self.marks.last().is_some_and(|mark| *mark >= self.stack.len()) {
            return self.wrong("the stack is empty up to its mark");
        }
        match self.stack.pop() {
            Some(item) => Ok(item),
            None => self.wrong("the stack is empty"),
        }
    }

    fn pop_mark(&mut self) -> Outcome<Vec<Item>> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => self.wrong("a mark is missing"),
        }
    }

    fn get(&mut self, index: u32) -> Outcome<()> {
        match self.memo.get(&index) {
            Some(item) => self.stack.push(item.clone()),
            None => return self.wrong(format!("nothing was kept as number {index}")),
        }
        Ok(())
    }

    fn put(&mut self, index: u32) -> Outcome<()> {
        match self.stack.last() {
            Some(item) => {
                self.memo.insert(index, item.clone());
                Ok(())
            }
            None => self.wrong("nothing to keep"),
        }
    }

    fn new_list(&mut self, items: Vec<Item>) -> usize {
        self.lists.push(items);
        self.lists.len() - 1
    }

    fn tuple(&mut self, items: Vec<Item>) {
        let place = self.new_list(items);
        self.stack.push(Item::Tuple(place));
    }

    fn tuple_of(&mut self, len: usize) -> Outcome<()> {
        let mut items = Vec::with_capacity(len);
        for _ in 0..len {
            items.push(self.pop()?);
        }
        items.reverse();
        self.tuple(items);
        Ok(())
    }

    fn new_dict(&mut self, entries: Vec<(Item, Item)>, ordered: bool) {
        self.dicts.push((entries, ordered));
        self.stack.push(Item::Dict(self.dicts.len() - 1));
    }

    fn extend(&mut self, items: Vec<Item>) -> Outcome<()> {
        match self.stack.last() {
            Some(Item::List(list)) => self.lists[*list].extend(items),
            _ => return self.wrong("items for something that is not a list"),
        }
        Ok(())
    }

    fn set(&mut self, items: Vec<Item>) -> Outcome<()> {
        if !items.len().is_multiple_of(2) {
            return self.wrong("a key without a value");
        }
        let Some(Item::Dict(dict)) = self.stack.last() else {
            return self.wrong("entries for something that is not a dict");
        };
        let entries = &mut self.dicts[*dict].0;
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            entries.push((key, value));
        }
        Ok(())
    }

    fn arguments(&self, tuple: usize) -> Outcome<Vec<Item>> {
        match &self.lists[tuple] {
            items if items.len() <= 16 => Ok(items.clone()),
            items => self.wrong(format!("a call with {} arguments", items.len())),
        }
    }

    fn call(&mut self, global: Global, arguments: &[Item]) -> Outcome<Item> {
        match (global, arguments) {
            (Global::OrderedDict, []) => self.dict(Vec::new(), true),
            (Global::OrderedDict, [Item::List(pairs)]) => {
                self.work += self.lists[*pairs].len();
                let pairs = self.pairs(*pairs)?;
                self.dict(pairs, true)
            }
            (Global::Counter, []) => self.dict(Vec::new(), false),
            (Global::Counter, [Item::Dict(dict)]) => Ok(Item::Dict(*dict)),
            (Global::RebuildTensor, [Item::Storage(storage, kind), offset, shape, stride]) => {
                self.tensor(storage, *kind, offset, shape, stride)
            }
            (Global::RebuildTensorV2, [Item::Storage(storage, kind), offset, shape, stride, _, _, rest @ ..]) => {
                self.no_metadata(rest)?;
                self.tensor(storage, *kind, offset, shape, stride)
            }
            (
                Global::RebuildTensorV3,
                [Item::Storage(storage, _), offset, shape, stride, _, _, Item::Global(Global::Dtype(kind)), rest @ ..],
            ) => {
                self.no_metadata(rest)?;
                self.tensor(storage, *kind, offset, shape, stride)
            }
            (Global::RebuildParameter, [Item::Tensor(tensor), _, _, ..]) => Ok(Item::Tensor(tensor.clone())),
            (
                Global::RebuildFromType,
                [
                    Item::Global(function),
                    Item::Global(Global::Tensor | Global::Parameter),
                    Item::Tuple(arguments),
                    _state,
                ],
            ) if *function != Global::RebuildFromType => {
                let arguments = self.arguments(*arguments)?;
                self.call(*function, &arguments)
            }
            (Global::Size, [Item::Tuple(sizes)]) => Ok(Item::Tuple(*sizes)),
            (Global::Device, [Item::Plain(Value::Str(kind))]) => Ok(Item::Plain(Value::Device(kind.clone()))),
            (Global::Device, [Item::Plain(Value::Str(kind)), Item::Plain(Value::Int(index))]) => {
                Ok(Item::Plain(Value::Device(format!("{kind}:{index}").into())))
            }
            (Global::Encode | Global::Bytearray, [Item::Plain(Value::Str(text)), Item::Plain(Value::Str(codec))])
                if matches!(&**codec, "latin1" | "latin-1") =>
            {
                self.latin1(text)
            }
            (Global::Bytearray, [Item::Plain(Value::Bytes(bytes))]) => Ok(Item::Plain(Value::Bytes(bytes.clone()))),
            (Global::Bytearray, []) => Ok(Item::Plain(Value::Bytes(Arc::from([])))),
            _ => {
                let arguments: Vec<_> = arguments.iter().map(Item::what).collect();
                self.wrong(format!("{global:?} is called with ({})", arguments.join(", ")))
            }
        }
    }

    fn dict(&mut self, entries: Vec<(Item, Item)>, ordered: bool) -> Outcome<Item> {
        self.dicts.push((entries, ordered));
        Ok(Item::Dict(self.dicts.len() - 1))
    }

    fn pairs(&self, list: usize) -> Outcome<Vec<(Item, Item)>> {
        let pair = |item: &Item| match item {
            Item::List(pair) | Item::Tuple(pair) => match &self.lists[*pair][..] {
                [key, value] => Some((key.clone(), value.clone())),
                _ => None,
            },
            _ => None,
        };
        match self.lists[list].iter().map(pair).collect() {
            Some(pairs) => Ok(pairs),
            None => self.wrong("an OrderedDict is made of something that is not pairs"),
        }
    }

    fn latin1(&self, text: &str) -> Outcome<Item> {
        let bytes: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
        match bytes {
            Ok(bytes) => Ok(Item::Plain(Value::Bytes(bytes.into()))),
            Err(_) => self.wrong("bytes with a character beyond 255"),
        }
    }

    /// A tensor whose numbers are negated or conjugated on reading says so here.
    fn no_metadata(&self, rest: &[Item]) -> Outcome<()> {
        match rest {
            [] | [Item::Plain(Value::None)] => Ok(()),
            [Item::Dict(dict)] if self.dicts[*dict].0.is_empty() => Ok(()),
            _ => Err(Problem::Dtype { name: "a negated or conjugated view".into() }),
        }
    }

    fn tensor(
        &mut self,
        storage: &Arc<Storage>,
        kind: Kind,
        offset: &Item,
        shape: &Item,
        stride: &Item,
    ) -> Outcome<Item> {
        let offset = self.int(offset)?;
        let (shape, stride) = (self.ints(shape)?, self.ints(stride)?);
        Ok(Item::Tensor(Arc::new(TensorRef::new(kind, shape, stride, offset, storage.clone())?)))
    }

    fn int(&self, item: &Item) -> Outcome<i64> {
        match item {
            Item::Plain(Value::Int(number)) => Ok(*number),
            other => self.wrong(format!("{} where a whole number belongs", other.what())),
        }
    }

    fn ints(&self, item: &Item) -> Outcome<Vec<i64>> {
        match item {
            Item::Tuple(items) | Item::List(items) if self.lists[*items].len() <= 64 => {
                self.lists[*items].iter().map(|item| self.int(item)).collect()
            }
            other => self.wrong(format!("{} where a shape belongs", other.what())),
        }
    }

    /// `("storage", class, key, location, number of elements)`, and an old sixth that is `None`.
    fn persistent(&mut self) -> Outcome<Item> {
        let id = self.pop()?;
        let Item::Tuple(id) = id else {
            return self.wrong("a reference that is not a storage's");
        };
        let (key, kind, numel) = match &self.lists[id][..] {
            [
                Item::Plain(Value::Str(word)),
                Item::Global(Global::Storage(kind)),
                Item::Plain(Value::Str(key)),
                Item::Plain(Value::Str(_)),
                Item::Plain(Value::Int(numel)),
                rest @ ..,
            ] if &**word == "storage" && rest.len() <= 1 => (key.clone(), kind.unwrap_or(Kind::Uint8), *numel),
            _ => return self.wrong("a reference that is not a storage's"),
        };
        let bytes = u64::try_from(numel).ok().and_then(|n| n.checked_mul(kind.elt_size_in_bytes() as u64));
        let Some(bytes) = bytes else {
            return self.wrong(format!("a storage of {numel} elements"));
        };
        Ok(Item::Storage((self.storages)(&key, kind, bytes)?, kind))
    }

    /// The value of an item, with everything in it.
    fn finish(&self, item: &Item, depth: u64, left: &mut u64) -> Outcome<Value> {
        if depth > DEPTH_LIMIT {
            return Err(Problem::Limit { what: "data.pkl is nested too deep", limit: DEPTH_LIMIT });
        }
        if *left == 0 {
            return Err(Problem::Limit { what: "data.pkl holds too many values", limit: VALUE_LIMIT });
        }
        *left -= 1;
        let mut finish = |item: &Item| self.finish(item, depth + 1, left);
        Ok(match item {
            Item::Plain(value) => value.clone(),
            Item::List(list) => Value::List(self.lists[*list].iter().map(finish).collect::<Outcome<_>>()?),
            Item::Tuple(list) => Value::Tuple(self.lists[*list].iter().map(finish).collect::<Outcome<_>>()?),
            Item::Dict(dict) => {
                let (entries, ordered) = &self.dicts[*dict];
                let mut finished = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    finished.push((finish(key)?, finish(value)?));
                }
                self.check_keys(&finished)?;
                Value::Dict(Dict::from_entries(finished, *ordered))
            }
            Item::Tensor(tensor) => Value::Tensor(TensorValue::Stored(tensor.clone())),
            Item::Global(Global::Dtype(kind)) => Value::Dtype(*kind),
            Item::Global(_) | Item::Storage(..) => {
                return self.wrong(format!("{} that belongs to no tensor", item.what()));
            }
        })
    }

    fn check_keys(&self, entries: &[(Value, Value)]) -> Outcome<()> {
        let mut seen = std::collections::HashSet::with_capacity(entries.len());
        for (key, _) in entries {
            let key = match key {
                Value::Str(text) => (Some(text.clone()), 0),
                Value::Int(number) => (None, *number),
                Value::List(_) | Value::Dict(_) | Value::Tensor(_) => {
                    return self.wrong("a dict whose key is a list, a dict or a tensor");
                }
                _ => continue,
            };
            if !seen.insert(key.clone()) {
                let key = key.0.map_or(key.1.to_string(), |text| text.to_string());
                return self.wrong(format!("a dict with two entries for `{key}`"));
            }
        }
        Ok(())
    }
}
