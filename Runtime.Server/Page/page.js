'use strict';
// One page, no framework, no request but to this server. What a model writes is put in as text, never as HTML.
const $ = id => document.getElementById(id);
const state = { sets: [], policy: null, model: '', images: [], turns: [], running: null };

const headers = () => ({ 'content-type': 'application/json', ...($('key').value ? { authorization: `Bearer ${$('key').value}` } : {}) });

async function load() {
  try {
    const get = async path => {
      const reply = await fetch(path, { headers: headers() });
      const body = await reply.json();
      if (!reply.ok) throw new Error(body.error?.message ?? `HTTP ${reply.status}`);
      return body;
    };
    const models = await get('v1/models');
    const vectors = await get('v1/steering/vectors');
    state.model = models.data[0].id;
    state.sets = vectors.data;
    state.policy = vectors.policy;
    $('model').textContent = `${state.model} · policy ${vectors.policy.version}`;
    const chosen = $('vectors').value || vectors.policy.images.vectors;
    $('vectors').replaceChildren(...state.sets.map(set => new Option(set.name, set.name, false, set.name === chosen)));
    $('vectors').disabled = state.sets.length === 0;
    describe();
    $('error').textContent = '';
  } catch (error) {
    $('model').textContent = `not connected: ${error.message}`;
  }
}

function describe() {
  const set = state.sets.find(s => s.name === $('vectors').value);
  const rule = state.policy?.images;
  const marks = [], notes = [];
  if (set?.operating_point) {
    marks.push(set.operating_point.alpha);
    notes.push(`operating point ${set.operating_point.alpha} (${set.operating_point.scope})`);
  }
  if (rule?.alpha_floor > 0) {
    marks.push(rule.alpha_floor);
    notes.push(`policy floor ${rule.alpha_floor}`);
  }
  $('alpha-marks').replaceChildren(...marks.map(value => { const option = new Option(); option.value = value; return option; }));
  $('alpha-hint').textContent = notes.join(' · ');
  if (set?.operating_point && !$('alpha').dataset.touched) setAlpha(set.operating_point.alpha);
}

function setAlpha(value) {
  $('alpha').value = value;
  $('alpha-value').value = Number($('alpha').value).toFixed(2);
}

// Images: chosen, pasted or dropped; kept as data: URLs.
async function addImages(files) {
  for (const file of files) {
    if (!file.type.startsWith('image/')) continue;
    const url = await new Promise((done, fail) => {
      const reader = new FileReader();
      reader.onload = () => done(reader.result);
      reader.onerror = () => fail(reader.error);
      reader.readAsDataURL(file);
    });
    state.images.push({ url, name: file.name || 'pasted image' });
  }
  showImages();
}

function showImages() {
  $('images').replaceChildren(...state.images.map((image, i) => {
    const item = document.createElement('li'), picture = document.createElement('img'), remove = document.createElement('button');
    picture.src = image.url;
    picture.alt = image.name;
    remove.type = 'button';
    remove.textContent = '×';
    remove.setAttribute('aria-label', `Remove ${image.name}`);
    remove.onclick = () => { state.images.splice(i, 1); showImages(); $('text').focus(); };
    item.append(picture, remove);
    return item;
  }));
}

// One answer, streamed. → { text, receipt }
async function answer(pane, messages, steering, signal) {
  const text = pane.querySelector('.text'), facts = pane.querySelector('.facts');
  const start = performance.now();
  let first = 0, receipt = null, usage = null, written = '';
  try {
    const reply = await fetch('v1/chat/completions', {
      method: 'POST', headers: headers(), signal,
      body: JSON.stringify({
        model: state.model, messages, stream: true, stream_options: { include_usage: true }, steering,
        max_tokens: Number($('max-tokens').value) || 128, temperature: Number($('temperature').value) || 0,
      }),
    });
    if (!reply.ok) throw new Error((await reply.json()).error?.message ?? `HTTP ${reply.status}`);
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = '';
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith('data:') || line.includes('[DONE]')) continue;
        const chunk = JSON.parse(line.slice(5));
        if (chunk.error) throw new Error(chunk.error.message);
        const piece = chunk.choices?.[0]?.delta?.content;
        if (piece) {
          first ||= performance.now();
          written += piece;
          text.textContent = written;
        }
        usage = chunk.usage ?? usage;
        receipt = chunk.steering_receipt ?? chunk.choices?.[0]?.steering_receipt ?? receipt;
      }
    }
    const end = performance.now(), tokens = usage?.completion_tokens ?? 0;
    facts.textContent = [
      first ? `first token ${Math.round(first - start)} ms` : '',
      tokens > 1 && first ? `${((tokens - 1) / ((end - first) / 1000)).toFixed(1)} tokens/s` : '',
      usage ? `${usage.prompt_tokens} + ${tokens} tokens` : '',
      usage?.prompt_tokens_details?.cached_tokens ? `${usage.prompt_tokens_details.cached_tokens} cached` : '',
      receipt?.telemetry?.drifted ? 'unlike the prompts that the vectors were made from' : '',
    ].filter(Boolean).join(' · ');
  } catch (error) {
    if (error.name === 'AbortError') facts.textContent = 'stopped';
    else {
      const line = document.createElement('span');
      line.className = 'failed';
      line.textContent = error.message;
      facts.replaceChildren(line);
    }
  }
  return { text: written, receipt };
}

// Projection of each layer's state on its vector, before and after the edit.
function chart(figure, telemetry) {
  const before = telemetry?.prompt_before ?? telemetry?.mean_before, after = telemetry?.prompt_after ?? telemetry?.mean_after;
  if (!before?.length) return;
  const make = (name, attributes) => {
    const node = document.createElementNS('http://www.w3.org/2000/svg', name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const width = 640, height = 190, left = 52, right = 12, top = 12, bottom = 28;
  const low = Math.min(0, ...before, ...after), high = Math.max(0, ...before, ...after), span = high - low || 1;
  const x = i => left + (before.length === 1 ? .5 : i / (before.length - 1)) * (width - left - right);
  const y = value => top + (high - value) / span * (height - top - bottom);
  const svg = make('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': 'Projection on the vectors, layer by layer, before and after the edit' });
  for (const value of new Set([low, 0, high])) {
    svg.append(make('line', { class: 'axis', x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    const label = make('text', { x: left - 6, y: y(value) + 4, 'text-anchor': 'end' });
    label.textContent = value.toFixed(1);
    svg.append(label);
  }
  const every = Math.ceil(before.length / 16);
  before.forEach((_, i) => {
    if (i % every) return;
    const label = make('text', { x: x(i), y: height - 8, 'text-anchor': 'middle' });
    label.textContent = i + 1;
    svg.append(label);
  });
  for (const [name, values] of [['before', before], ['after', after]]) {
    svg.append(make('polyline', { class: name, points: values.map((value, i) => `${x(i)},${y(value)}`).join(' ') }));
    values.forEach((value, i) => {
      const dot = make('circle', { class: name, cx: x(i), cy: y(value), r: 3 }), title = make('title', {});
      title.textContent = `layer ${i + 1}, ${name}: ${value.toFixed(3)}`;
      dot.append(title);
      svg.append(dot);
    });
  }
  const caption = document.createElement('figcaption');
  caption.textContent = 'Where the prompt’s last token lies along each layer’s vector: before the edit (orange) and after it (blue).';
  figure.replaceChildren(svg, caption);
}

function messagesOf(kind, content) {
  const past = state.turns.flatMap(turn => [{ role: 'user', content: turn.content }, { role: 'assistant', content: turn[kind] }]);
  return [...past, { role: 'user', content }];
}

async function ask() {
  const text = $('text').value.trim();
  if (state.running || (!text && state.images.length === 0)) return;
  const content = [...state.images.map(image => ({ type: 'image_url', image_url: { url: image.url } })), { type: 'text', text }];
  const turn = $('turn-template').content.firstElementChild.cloneNode(true);
  turn.querySelector('.question p').textContent = text;
  turn.querySelector('.pictures').replaceChildren(...state.images.map(image => Object.assign(document.createElement('img'), { src: image.url, alt: image.name })));
  $('turns').append(turn);
  turn.scrollIntoView({ block: 'nearest' });
  $('text').value = '';
  state.images = [];
  showImages();
  state.running = new AbortController();
  $('send').disabled = true;
  $('stop').disabled = false;
  const steering = { alpha: Number($('alpha').value) };
  if ($('vectors').value) steering.vectors = $('vectors').value;
  if ($('scope').value) steering.scope = $('scope').value;
  if ($('layers').value.trim()) steering.layers = $('layers').value.trim();
  const pane = kind => turn.querySelector(`[data-kind=${kind}]`);
  const [steered, unsteered] = await Promise.all([
    answer(pane('steered'), messagesOf('steered', content), steering, state.running.signal),
    answer(pane('unsteered'), messagesOf('unsteered', content), { mode: 'off' }, state.running.signal),
  ]);
  chart(turn.querySelector('.chart'), steered.receipt?.telemetry);
  const button = turn.querySelector('.receipt');
  if (steered.receipt) {
    button.disabled = false;
    button.onclick = () => save(steered.receipt);
  }
  if (steered.text || unsteered.text) state.turns.push({ content, steered: steered.text, unsteered: unsteered.text });
  state.running = null;
  $('send').disabled = false;
  $('stop').disabled = true;
  $('text').focus();
}

function save(receipt) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([JSON.stringify(receipt, null, 2)], { type: 'application/json' }));
  link.download = `receipt-${receipt.id ?? 'answer'}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

$('ask').addEventListener('submit', event => { event.preventDefault(); ask(); });
$('text').addEventListener('keydown', event => {
  if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
});
$('stop').addEventListener('click', () => state.running?.abort());
$('clear').addEventListener('click', () => { state.running?.abort(); state.turns = []; $('turns').replaceChildren(); $('text').focus(); });
$('alpha').addEventListener('input', () => { $('alpha').dataset.touched = 'yes'; setAlpha($('alpha').value); });
$('vectors').addEventListener('change', describe);
$('key').addEventListener('change', load);
$('file').addEventListener('change', () => { addImages($('file').files); $('file').value = ''; });
$('text').addEventListener('paste', event => {
  const files = [...event.clipboardData.files];
  if (files.length) { event.preventDefault(); addImages(files); }
});
for (const name of ['dragenter', 'dragover', 'dragleave', 'drop'])
  document.addEventListener(name, event => {
    event.preventDefault();
    $('drop').classList.toggle('over', name === 'dragenter' || name === 'dragover');
    if (name === 'drop') addImages(event.dataTransfer.files);
  });
load();
