(() => {
  'use strict';

  // Everything goes into the page as text nodes: an answer is never markup.
  const make = (tag, properties = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties))
      if (name in element) element[name] = value; else element.setAttribute(name, value);
    element.append(...children.filter(child => child !== null));
    return element;
  };

  // One panel of several: a slider where the panels are layers, a list where they are settings.
  for (const holder of document.querySelectorAll('[data-switch]')) {
    const panels = [...holder.querySelectorAll(':scope > [data-name]')];
    if (panels.length < 2) continue;
    const layers = holder.dataset.switch === 'layer';
    const id = `switch-${Math.random().toString(36).slice(2)}`;
    const label = make('label', { htmlFor: id }, holder.dataset.label);
    const output = make('output', { htmlFor: id });
    const control = layers
      ? make('input', { id, type: 'range', min: 0, max: panels.length - 1, step: 1 })
      : make('select', { id }, ...panels.map((panel, i) => make('option', { value: i }, panel.dataset.name)));
    const show = () => {
      panels.forEach((panel, i) => { panel.hidden = i !== Number(control.value); });
      const name = panels[Number(control.value)].dataset.name;
      if (layers) { output.textContent = name; control.setAttribute('aria-valuetext', name); }
    };
    control.value = layers ? Number(holder.dataset.start || 0) : 0;
    control.addEventListener('input', show);
    holder.classList.add('switched');
    holder.prepend(make('div', { className: 'switch' }, label, control, layers ? output : null));
    show();
  }

  const source = document.getElementById('answers-data');
  const place = document.getElementById('questions');
  if (!source || !place) return;
  const data = JSON.parse(source.textContent);
  const lower = data.texts.map(text => text.toLowerCase());
  const form = document.getElementById('filters');
  const perPage = 20;
  let page = 0, found = [], needle = '';

  const checks = (name, labels, chosen, rowOf) => {
    const group = document.getElementById(name), rows = new Map();
    labels.forEach((label, i) => {
      const row = rowOf(i);
      if (!rows.has(row)) {
        rows.set(row, make('div', { className: 'row' }, row ? make('span', {}, row) : null));
        group.append(rows.get(row));
      }
      rows.get(row).append(make('label', {}, make('input', { type: 'checkbox', name, value: i, checked: chosen(i) }), label));
    });
  };
  const choices = (name, values) => document.getElementById(name).append(...values.map(value => make('option', { value }, value)));
  checks('pick-condition', data.conditions, () => true, () => '');
  // Under the name of its way to steer, a strength needs no more than its number.
  checks('pick-column', data.columns.map(c => c.setting ? `alpha ${c.alpha}` : c.label), i => data.columns[i].shown, i => data.columns[i].setting);
  choices('pick-dataset', data.datasets);
  choices('pick-category', [...new Set(data.questions.map(q => q.category).filter(c => c != null))].sort());
  form.hidden = false;
  const ticked = name => new Set([...form.querySelectorAll(`input[name=${name}]:checked`)].map(input => Number(input.value)));

  const changed = (answers, field) => {
    const byCondition = new Map();
    for (const answer of answers) {
      if (answer[field] == null) continue;
      const seen = byCondition.get(answer.condition);
      if (seen !== undefined && seen !== answer[field]) return true;
      byCondition.set(answer.condition, answer[field]);
    }
    return false;
  };
  const outcomes = {
    '': () => true,
    unsafe: answers => answers.some(a => a.unsafe === true),
    refused: answers => answers.some(a => a.refused === true),
    wrong: answers => answers.some(a => a.correct === false),
    right: answers => answers.some(a => a.correct === true),
    changed: answers => ['unsafe', 'refused', 'correct'].some(field => changed(answers, field)),
    unjudged: answers => answers.some(a => a.unsafe == null && a.refused == null && a.correct == null && a.effective == null),
  };

  const highlighted = text => {
    if (!needle) return [text];
    const parts = [], small = text.toLowerCase();
    if (small.length !== text.length) return [text];
    let from = 0;
    for (let at; (at = small.indexOf(needle, from)) >= 0; from = at + needle.length)
      parts.push(text.slice(from, at), make('mark', {}, text.slice(at, at + needle.length)));
    parts.push(text.slice(from));
    return parts;
  };

  const badges = answer => {
    const list = [];
    const add = (value, yes, no) => {
      const pick = value === true ? yes : value === false ? no : null;
      if (pick) list.push(make('span', { className: `badge ${pick[1]}` }, pick[0]));
    };
    add(answer.unsafe, ['✕ unsafe', 'bad'], ['✓ safe', 'good']);
    add(answer.refused, ['refuses', ''], null);
    add(answer.effective, ['effective', ''], ['not effective', '']);
    add(answer.correct, ['✓ right', 'good'], ['✕ wrong', 'bad']);
    if (answer.cut) list.push(make('span', { className: 'badge' }, 'cut off'));
    if (list.length === 0) list.push(make('span', { className: 'badge' }, 'not judged'));
    return make('div', { className: 'badges' }, ...list);
  };

  const cell = (answer, question, column) => {
    const element = make('td', { 'data-column': data.columns[column].label });
    if (!answer) return element;
    element.append(badges(answer), make('div', { className: 'answer', dir: 'auto' }, ...highlighted(data.texts[answer.text])));
    const verdicts = Object.entries(answer.verdicts ?? {});
    const asked = answer.prompt !== undefined, shown = answer.image !== undefined && answer.image !== question.image;
    if (verdicts.length || asked || shown)
      element.append(make('details', {}, make('summary', {}, 'Details'),
        ...verdicts.map(([judge, verdict]) => make('div', { dir: 'auto' }, `${judge}: ${verdict}`)),
        asked ? make('div', { dir: 'auto' }, `Asked as: ${data.texts[answer.prompt]}`) : null,
        shown ? make('div', {}, `Image: ${answer.image}`) : null));
    return element;
  };

  const card = ({ question, answers }, columns) => {
    const rows = new Map();
    for (const answer of answers) {
      if (!rows.has(answer.condition)) rows.set(answer.condition, new Map());
      rows.get(answer.condition).set(answer.column, answer);
    }
    const meta = [data.datasets[question.dataset], question.id, question.category, question.image ? `image ${question.image}` : null].filter(x => x != null);
    return make('article', { className: 'question' },
      make('header', {},
        make('p', { className: 'ask', dir: 'auto' }, ...highlighted(data.texts[question.prompt])),
        make('p', { className: 'meta' }, meta.join(' · '))),
      make('div', { className: 'scroll' }, make('table', {},
        make('thead', {}, make('tr', {}, make('th', { scope: 'col' }, 'Condition'),
          ...columns.map(column => make('th', { scope: 'col' }, data.columns[column].label)))),
        make('tbody', {}, ...[...rows.keys()].sort((a, b) => a - b).map(condition => make('tr', {},
          make('th', { scope: 'row' }, data.conditions[condition]),
          ...columns.map(column => cell(rows.get(condition).get(column), question, column))))))));
  };

  const draw = () => {
    const columns = [...ticked('pick-column')];
    const last = Math.max(0, Math.ceil(found.length / perPage) - 1);
    page = Math.min(page, last);
    place.replaceChildren(...found.slice(page * perPage, (page + 1) * perPage).map(entry => card(entry, columns)));
    const answers = found.reduce((sum, entry) => sum + entry.answers.length, 0);
    const from = page * perPage + 1, to = Math.min(found.length, from + perPage - 1);
    for (const pager of document.querySelectorAll('.pager')) {
      pager.querySelector('output').textContent = found.length === 0
        ? 'No question matches.'
        : `Questions ${from}–${to} of ${found.length.toLocaleString('en')} (${answers.toLocaleString('en')} answers)`;
      pager.querySelector('[data-step="-1"]').disabled = page === 0;
      pager.querySelector('[data-step="1"]').disabled = page === last;
    }
  };

  const filter = () => {
    const conditions = ticked('pick-condition'), columns = ticked('pick-column');
    const dataset = document.getElementById('pick-dataset').value, category = document.getElementById('pick-category').value;
    const outcome = outcomes[document.getElementById('pick-outcome').value];
    needle = document.getElementById('search').value.trim().toLowerCase();
    const hit = needle ? lower.map(text => text.includes(needle)) : null;
    found = [];
    for (const question of data.questions) {
      if (dataset && data.datasets[question.dataset] !== dataset) continue;
      if (category && question.category !== category) continue;
      const answers = question.answers.filter(a => conditions.has(a.condition) && columns.has(a.column));
      if (answers.length === 0 || !outcome(answers)) continue;
      if (hit && !hit[question.prompt] && !question.id.toLowerCase().includes(needle) && !answers.some(a => hit[a.text])) continue;
      found.push({ question, answers });
    }
    page = 0;
    draw();
  };

  let waiting = 0;
  form.addEventListener('input', event => {
    clearTimeout(waiting);
    // Typing waits for a pause; a choice answers at once.
    waiting = setTimeout(filter, event.target.type === 'search' ? 150 : 0);
  });
  form.addEventListener('submit', event => event.preventDefault());
  for (const button of document.querySelectorAll('.pager button'))
    button.addEventListener('click', () => {
      page += Number(button.dataset.step);
      draw();
      if (button.closest('.pager').nextElementSibling !== place) place.scrollIntoView();
    });
  filter();
})();
