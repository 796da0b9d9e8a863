'use strict';
const $ = id => document.getElementById(id);
const make = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
};
const panes = { steered: { log: $('steered'), turns: [] }, unsteered: { log: $('unsteered'), turns: [] } };
let model = null, steering = null, images = [], running = null, shown = null;

function store(value) {
  try { return value === undefined ? sessionStorage.getItem('key') || '' : sessionStorage.setItem('key', value); } catch { return ''; }
}
const headers = () => $('key').value ? { Authorization: `Bearer ${$('key').value}` } : {};
const message = async response => {
  try { return (await response.json()).error.message; } catch { return `HTTP ${response.status}`; }
};
const rule = withImages => withImages ? steering.policy.images : steering.policy.text;
const hasImages = () => images.length > 0 || panes.steered.turns.some(turn => Array.isArray(turn.content));
const may = right => steering?.policy.may.includes(right);

async function connect() {
  try {
    const get = async path => {
      const response = await fetch(path, { headers: headers() });
      if (!response.ok) throw new Error(await message(response));
      return response.json();
    };
    const [models, vectors] = await Promise.all([get('/v1/models'), get('/v1/steering/vectors')]);
    [model, steering] = [models.data[0], vectors];
    const policy = steering.policy, unavailable = policy.images.unavailable;
    $('server').textContent = `${model.id}, ${model.layers} layers, ${model.max_model_len} positions; policy ${policy.version}` + (unavailable ? `; images are refused: ${unavailable}` : '');
    const names = steering.data.map(set => set.name);
    $('vectors').replaceChildren(...names.map(name => new Option(name, name)));
    if (may('sample')) $('vectors').append(new Option('made from the request (needs an image)', '\u0000sample'));
    const chosen = policy.images.vectors ?? policy.text.vectors ?? names[0];
    if (chosen) $('vectors').value = chosen;
    $('vectors').disabled = !may('vectors') && !may('sample');
    $('alpha').disabled = !may('alpha');
    $('scope').disabled = !may('scope');
    $('layers').disabled = !may('layers');
    if (policy.images.vectors) $('alpha').value = policy.images.alpha;
    mark();
  } catch (error) {
    model = null;
    $('server').textContent = error.message;
    if (/Authorization|key/.test(error.message)) $('key').closest('details').open = true;
  }
}

function mark() {
  $('alphaValue').textContent = Number($('alpha').value).toFixed(2);
  if (!steering) return;
  const set = steering.data.find(entry => entry.name === $('vectors').value);
  const at = rule(hasImages()), texts = [];
  const tick = (value, className) => {
    if (value < 0 || value > 2) return [];
    const line = make('i', className);
    line.style.left = `${value * 50}%`;
    return [line];
  };
  const ticks = [];
  if (set?.operating_point) { ticks.push(...tick(set.operating_point.alpha, 'point')); texts.push(`operating point ${set.operating_point.alpha}`); }
  if (at.required && at.alpha_floor > 0) { ticks.push(...tick(at.alpha_floor, 'floor')); texts.push(`policy's floor ${at.alpha_floor} (below it: ${at.below_floor})`); }
  if ($('alpha').disabled) texts.push('the policy lets this key choose no alpha');
  $('marks').replaceChildren(...ticks);
  $('marksText').textContent = texts.join('; ');
}

function addImages(files) {
  for (const file of files) {
    if (!file.type.startsWith('image/')) { $('said').textContent = `${file.name} is no image`; continue; }
    const reader = new FileReader();
    reader.onload = () => { images.push({ name: file.name || 'pasted image', url: reader.result }); showImages(); };
    reader.onerror = () => { $('said').textContent = `${file.name} could not be read`; };
    reader.readAsDataURL(file);
  }
}

function showImages() {
  $('images').replaceChildren(...images.map((image, i) => {
    const item = make('li'), picture = make('img'), remove = make('button', '', 'Remove');
    [picture.src, picture.alt, remove.type] = [image.url, image.name, 'button'];
    remove.setAttribute('aria-label', `Remove ${image.name}`);
    remove.onclick = () => { images.splice(i, 1); showImages(); $('prompt').focus(); };
    item.append(picture, remove);
    return item;
  }));
  mark();
}

function steer(withImages) {
  const wanted = {}, chosen = $('vectors').value, at = rule(withImages);
  if (chosen === '\u0000sample') wanted.mode = 'sample';
  else if (chosen && (chosen === at.vectors || may('vectors'))) wanted.vectors = chosen;
  else if (!at.vectors) return undefined;
  if (may('alpha')) wanted.alpha = Number($('alpha').value);
  if ($('scope').value) wanted.scope = $('scope').value;
  if ($('layers').value.trim()) wanted.layers = $('layers').value.trim();
  return wanted;
}

async function answer(pane, question, wanted, stop) {
  const turn = make('div', 'turn'), text = make('p', 'answer'), facts = make('p', 'facts');
  turn.append(make('p', 'question', question.text + (question.pictures.length ? ` [${question.pictures.length} image${question.pictures.length > 1 ? 's' : ''}]` : '')), text, facts);
  pane.log.append(turn);
  const content = question.pictures.length
    ? [...question.pictures.map(image => ({ type: 'image_url', image_url: { url: image.url } })), { type: 'text', text: question.text }]
    : question.text;
  const messages = [...pane.turns, { role: 'user', content }];
  const body = { model: model.id, messages, stream: true, stream_options: { include_usage: true }, temperature: question.temperature, max_completion_tokens: question.tokens, seed: 0 };
  if (wanted) body.steering = wanted;
  const began = performance.now();
  let first = 0, last = 0, usage = null, receipt = null, reason = '';
  try {
    const response = await fetch('/v1/chat/completions', { method: 'POST', headers: { 'Content-Type': 'application/json', ...headers() }, body: JSON.stringify(body), signal: stop });
    if (!response.ok) throw new Error(await message(response));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = '', done = false; !done;) {
      const part = await reader.read();
      done = part.done;
      const lines = (rest + (part.value ?? '')).split('\n');
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith('data: ') || line === 'data: [DONE]') continue;
        const event = JSON.parse(line.slice(6));
        if (event.error) throw new Error(event.error.message);
        const choice = event.choices?.[0];
        if (choice?.delta?.content) {
          last = performance.now();
          first ||= last;
          // A first word's token brings the space before it.
          text.append(text.textContent ? choice.delta.content : choice.delta.content.trimStart());
        }
        reason = choice?.finish_reason ?? reason;
        receipt = event.steering_receipt ?? receipt;
        usage = event.usage ?? usage;
      }
    }
    if (!stop.aborted) pane.turns.push({ role: 'user', content }, { role: 'assistant', content: text.textContent });
  } catch (error) {
    if (stop.aborted) {
      reason = 'stopped';
    } else {
      text.classList.add('error');
      text.append(text.textContent ? `\n${error.message}` : error.message);
    }
  }
  const said = [];
  if (first) said.push(`first token ${Math.round(first - began)} ms`);
  // Of a few tokens, or of a moment, a speed says nothing.
  if (usage && usage.completion_tokens >= 8 && last - first >= 50) said.push(`${((usage.completion_tokens - 1) / (last - first) * 1000).toFixed(1)} tokens/s`);
  if (usage) said.push(`${usage.prompt_tokens} + ${usage.completion_tokens} tokens`);
  if (reason) said.push(reason);
  const used = receipt?.steering;
  if (used) said.push(used.mode === 'off' ? 'unsteered' : `${used.vectors ?? used.mode}, alpha ${used.alpha}, ${used.scope}, layers ${used.layers}` + (used.raised_from === undefined ? '' : `, raised from ${used.raised_from}`));
  facts.textContent = said.join(' · ');
  if (receipt) {
    const save = make('button', '', 'Receipt');
    save.type = 'button';
    save.setAttribute('aria-label', `Download the ${pane === panes.steered ? 'steered' : 'unsteered'} answer's receipt`);
    save.onclick = () => {
      const link = make('a');
      link.href = URL.createObjectURL(new Blob([JSON.stringify(receipt, null, 2)], { type: 'application/json' }));
      link.download = `receipt-${receipt.id}.json`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    };
    turn.append(save);
  }
  return receipt;
}

function draw(telemetry) {
  shown = telemetry;
  const before = telemetry?.prompt_before ?? telemetry?.mean_before, after = telemetry?.prompt_after ?? telemetry?.mean_after;
  $('shift').hidden = !before?.length;
  if (!before?.length) return;
  // As wide as its place, so that its text keeps its size.
  const width = Math.max(280, Math.min($('chart').clientWidth, 1200));
  const space = 'http://www.w3.org/2000/svg', [height, left, right, top, bottom] = [260, 52, 12, 30, 34];
  const node = (tag, attributes, text) => {
    const element = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  };
  let [low, high] = [Math.min(0, ...before, ...after), Math.max(0, ...before, ...after)];
  if (low === high) high = low + 1;
  const x = i => left + (before.length === 1 ? 0.5 : i / (before.length - 1)) * (width - left - right);
  const y = value => top + (high - value) / (high - low) * (height - top - bottom);
  const chart = node('svg', { viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-labelledby': 'chartTitle' });
  chart.append(node('title', { id: 'chartTitle' }, `Projection on the vector by layer, before and after the edit, layers 1 to ${before.length}`));
  for (const value of [low, (low + high) / 2, high, 0]) {
    chart.append(node('line', { class: value === 0 ? 'zero' : 'grid', x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    if (value !== 0 || low === 0 || high === 0) chart.append(node('text', { x: left - 6, y: y(value) + 4, 'text-anchor': 'end' }, Number(value.toPrecision(3)).toString()));
  }
  const every = Math.ceil(before.length / Math.min(16, Math.floor((width - left - right) / 32)));
  before.forEach((_, i) => { if (i % every === 0) chart.append(node('text', { x: x(i), y: height - 16, 'text-anchor': 'middle' }, String(i + 1))); });
  chart.append(node('text', { x: (left + width - right) / 2, y: height - 4, 'text-anchor': 'middle' }, 'layer'));
  [['before', before], ['after', after]].forEach(([name, values], n) => {
    chart.append(node('polyline', { class: name, points: values.map((value, i) => `${x(i)},${y(value)}`).join(' ') }));
    values.forEach((value, i) => chart.append(node('circle', { class: name, cx: x(i), cy: y(value), r: 3.5 })));
    chart.append(node('line', { class: name, x1: left + 90 * n, x2: left + 30 + 90 * n, y1: 12, y2: 12 }), node('text', { x: left + 36 + 90 * n, y: 16 }, name));
  });
  $('chart').replaceChildren(chart);
  $('numbers').replaceChildren(...before.map((value, i) => {
    const row = make('tr');
    row.append(make('td', '', String(i + 1)), make('td', '', value.toFixed(4)), make('td', '', after[i].toFixed(4)));
    return row;
  }));
  $('drift').textContent = telemetry.drifted ? 'This prompt lies far outside the anchors that the vectors were made from.' : '';
}

async function ask() {
  const text = $('prompt').value.trim();
  if (running || !text) return;
  if (!model) await connect();
  if (!model) { $('said').textContent = $('server').textContent; return; }
  const question = { text, pictures: images, tokens: Number($('tokens').value) || 128, temperature: Number($('temperature').value) || 0 };
  const withImages = hasImages();
  running = new AbortController();
  [$('send').disabled, $('stop').disabled, images] = [true, false, []];
  $('prompt').value = '';
  showImages();
  $('said').textContent = 'Answering …';
  const stopped = running.signal;
  const [receipt] = await Promise.all([
    answer(panes.steered, question, steer(withImages), stopped),
    answer(panes.unsteered, question, { mode: 'off' }, stopped),
  ]);
  running = null;
  [$('send').disabled, $('stop').disabled] = [false, true];
  mark();
  if (stopped.reason === 'fresh') return; // what came of it belongs to no conversation any more
  draw(receipt?.telemetry);
  const last = pane => pane.log.lastElementChild?.querySelector('.answer').textContent ?? '';
  $('said').textContent = stopped.aborted ? 'Stopped.' : 'Both answers have ended.';
  const heard = make('span', 'hidden', ` Steered: ${last(panes.steered)} Unsteered: ${last(panes.unsteered)}`);
  $('said').append(heard);
  $('prompt').focus();
}

$('ask').addEventListener('submit', event => { event.preventDefault(); ask(); });
$('prompt').addEventListener('keydown', event => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
});
$('stop').addEventListener('click', () => running?.abort());
$('fresh').addEventListener('click', () => {
  running?.abort('fresh');
  for (const pane of Object.values(panes)) { pane.turns = []; pane.log.replaceChildren(); }
  draw(null);
  mark();
  $('said').textContent = '';
  $('prompt').focus();
});
$('file').addEventListener('change', event => { addImages(event.target.files); event.target.value = ''; });
document.addEventListener('paste', event => { if (event.clipboardData.files.length) { event.preventDefault(); addImages(event.clipboardData.files); } });
document.addEventListener('dragover', event => { event.preventDefault(); document.body.classList.add('drag'); });
document.addEventListener('dragleave', event => { if (!event.relatedTarget) document.body.classList.remove('drag'); });
document.addEventListener('drop', event => { event.preventDefault(); document.body.classList.remove('drag'); addImages(event.dataTransfer.files); });
window.addEventListener('resize', () => { if (shown) draw(shown); });
$('alpha').addEventListener('input', mark);
$('vectors').addEventListener('change', mark);
$('key').addEventListener('change', () => { store($('key').value); connect(); });
$('key').value = store();
connect();
