-- The rules of budget_rules.py on counts in Redis, by its clock. Their numbers are put before this text; the names
-- of counts and of functions are the same, and so are the tests.

local function counts(key)
    local found = {key = key, of = {}}
    local flat = redis.call('HGETALL', key)
    for i = 1, #flat, 2 do found.of[flat[i]] = tonumber(flat[i + 1]) end
    return found
end

local function get(from, name) return from.of[name] or 0 end

local function put(into, name, value)
    into.of[name] = value
    if value == nil then
        redis.call('HDEL', into.key, name)
    else
        redis.call('HSET', into.key, name, string.format('%.0f', value))
    end
end

local function add(into, name, number)
    local value = get(into, name) + number
    if value <= 0 then value = nil end
    put(into, name, value)
end

local function extend(into, name, until_) put(into, name, math.max(get(into, name), until_)) end

local function after(name, kind)
    if string.sub(name, 1, #kind) == kind then return string.sub(name, #kind + 1) end
end

local function sum(bucket, kind)
    local total = 0
    for name, tokens in pairs(bucket.of) do
        if after(name, kind) then total = total + tokens end
    end
    return total
end

local function forget(bucket, window, now)
    for name in pairs(bucket.of) do
        local ends = after(name, 'spent:') or after(name, 'held:')
        if ends and tonumber(ends) + window <= now then put(bucket, name, nil) end
    end
end

local function others(bucket, now)
    local since, window = now - get(bucket, 'others_at'), get(bucket, 'window')
    if since < 0 or since >= window then return 0 end
    return math.ceil(get(bucket, 'others') * (window - since) / window)
end

local function slot(now, window)
    local width = math.max(1, math.floor(window / SLOTS))
    return (math.floor(now / width) + 1) * width
end

local function margin(limit) return math.ceil(limit * MARGIN / 100) end

local function pause(failures)
    return math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ^ math.max(0, math.min(failures, 30) - FAILURES))
end

local function price(status)
    if status == 429 then return 0 end
    return PRICES[math.floor(status / 100)] or WORST
end

local function turn_minute(all, now)
    local ends = all.of['end']
    if ends and ends <= now then
        put(all, 'end', ends + math.floor((now - ends) / MINUTE) * MINUTE + MINUTE)
        put(all, 'errors', 0)
    end
end

local function stopped(all, route, now)
    if get(all, 'banned') > now then return get(all, 'banned') - now, 'ESI blocks us' end
    if get(all, 'stop') > now then return get(all, 'stop') - now, 'ESI has stopped us' end
    local until_ = get(all, 'stop:' .. route)
    if until_ > now then return until_ - now, 'ESI has stopped ' .. route end
    if get(all, 'failures') >= FAILURES and get(all, 'probe') > now then
        return get(all, 'probe') - now, 'ESI is down'
    end
    return 0, ''
end

local function bucket_wait(bucket, name, limit, window, now)
    if get(bucket, 'stop') > now then return get(bucket, 'stop') - now, 'ESI has stopped ' .. name end
    limit, window = bucket.of.limit or limit, bucket.of.window or window
    forget(bucket, window, now)
    local theirs, held = others(bucket, now), sum(bucket, 'held:')
    local short = sum(bucket, 'spent:') + held + theirs + WORST - (limit - margin(limit))
    if short <= 0 then return 0, '' end
    local wait = window + math.floor(window / SLOTS)
    if short <= held then wait = SOON end
    if theirs > 0 then wait = math.min(wait, math.floor(short * window / theirs) + 1) end
    local ends = {}
    for field in pairs(bucket.of) do
        local at = after(field, 'spent:')
        if at then ends[#ends + 1] = tonumber(at) end
    end
    table.sort(ends)
    local back = 0
    for _, at in ipairs(ends) do
        back = back + get(bucket, string.format('spent:%.0f', at))
        if back >= short then
            wait = math.min(wait, at + window - now)
            break
        end
    end
    return math.max(1, wait), 'the budget of ' .. name .. ' is spent'
end

local function errors_wait(all, now)
    turn_minute(all, now)
    local held = 0
    for name, until_ in pairs(all.of) do
        if after(name, 'held:') then
            if until_ <= now then put(all, name, nil) else held = held + 1 end
        end
    end
    local allowed = ERRORS - margin(ERRORS)
    if get(all, 'errors') >= allowed then
        return math.max(1, get(all, 'end') - now), 'the errors of this minute are spent'
    end
    if get(all, 'errors') + held >= allowed then
        return SOON, 'as many questions are under way as there may be errors'
    end
    return 0, ''
end

local function reserve(all, bucket, route, name, limit, window, permit, now)
    local wait, why = stopped(all, route, now)
    if wait == 0 then
        if bucket then
            wait, why = bucket_wait(bucket, name, limit, window, now)
        else
            wait, why = errors_wait(all, now)
        end
    end
    if wait > 0 then return {0, wait, why} end
    local probe = get(all, 'failures') >= FAILURES
    if probe then put(all, 'probe', now + pause(get(all, 'failures'))) end
    local at = 0
    if bucket then
        if not bucket.of.limit then
            put(bucket, 'limit', limit)
            put(bucket, 'window', window)
        end
        at = slot(now, bucket.of.window)
        add(bucket, string.format('held:%.0f', at), WORST)
    else
        put(all, 'held:' .. permit, now + HELD)
    end
    return {1, string.format('%.0f', at), probe and 1 or 0}
end

local function count_failures(all, probe, status, now)
    local failures = get(all, 'failures')
    if status > 0 and status < 500 then
        put(all, 'failures', 0)
    elseif failures < FAILURES or probe then
        put(all, 'failures', failures + 1)
        put(all, 'probe', now + pause(failures + 1))
    end
end

local function settle_bucket(bucket, report, now)
    if report.limit > 0 then
        put(bucket, 'limit', report.limit)
        put(bucket, 'window', report.window)
    end
    local at = slot(now, bucket.of.window or MINUTE)
    add(bucket, string.format('spent:%.0f', at), price(report.status))
    if report.remaining >= 0 then
        forget(bucket, bucket.of.window, now)
        put(bucket, 'others', math.max(0, bucket.of.limit - sum(bucket, 'spent:') - report.remaining))
        put(bucket, 'others_at', now)
    end
end

local function settle_errors(all, report, now)
    turn_minute(all, now)
    local known = report.errors_left >= 0 and report.errors_reset >= 0
    local ends = now + (known and report.errors_reset + 1000 or MINUTE)
    if report.status < 200 or report.status >= 400 then add(all, 'errors', 1) end
    if not all.of['end'] and (known or get(all, 'errors') > 0) then put(all, 'end', ends) end
    if not known or ends < all.of['end'] - MINUTE / 2 then return end
    if ends > all.of['end'] + MINUTE / 2 then put(all, 'errors', 0) end
    put(all, 'errors', math.max(get(all, 'errors'), ERRORS - report.errors_left))
    put(all, 'end', ends)
end

local function stop(all, bucket, route, report, now)
    if report.banned then
        extend(all, 'banned', now + math.max(BANNED, report.retry_after))
    elseif report.status == 420 then
        local known = math.max(report.errors_reset, report.retry_after)
        extend(all, 'stop', now + (known >= 0 and known + 1000 or STOP))
    elseif report.status == 429 then
        local wait = report.retry_after >= 0 and report.retry_after or STOP
        extend(bucket or all, bucket and 'stop' or 'stop:' .. route, now + wait)
    end
end

-- `paid` is the bucket of the permit, `told` the one that the answer names.
local function settle(all, paid, told, permit, report, now)
    add(all, string.format('answers:%.0f', report.status), 1)
    count_failures(all, permit.probe, report.status, now)
    if paid then
        add(paid, 'held:' .. permit.slot, -WORST)
    else
        put(all, 'held:' .. permit.name, nil)
    end
    local bucket = told or (report.errors_left < 0 and paid or nil)
    if bucket then
        settle_bucket(bucket, report, now)
        local name = told and report.bucket or permit.bucket
        if not string.find(name, ':', 1, true) then put(all, 'bucket:' .. name, 1) end
        redis.call('EXPIRE', bucket.key, KEPT)
    else
        settle_errors(all, report, now)
    end
    stop(all, bucket, permit.route, report, now)
end

local asked = cjson.decode(ARGV[1])
local time = redis.call('TIME')
local now = math.floor((time[1] * 1000 + math.floor(time[2] / 1000)) * asked.speed)
local all = counts(KEYS[1])
local first = KEYS[2] and counts(KEYS[2])
if asked.report == nil then
    local ask = asked.ask
    return reserve(all, first, ask.route, ask.bucket, ask.limit, ask.window, asked.name, now)
end
local permit, report = asked.permit, asked.report
local paid = permit.bucket ~= '' and first or nil
local told = report.bucket ~= '' and (report.bucket == permit.bucket and paid or counts(KEYS[#KEYS])) or nil
settle(all, paid, told, permit, report, now)
return 0
