-- Asks Waitroom about each request, for forward-auth.cfg.

local WAITROOM = "http://127.0.0.1:8080"
local TIMEOUT_MS = 5000

local COOKIES = { "^waitroom_arrival_", "^waitroom_ticket_", "^waitroom_pass_", "^waitroom_shown_" }

-- Headers of this connection and of the body, which stays here. The check gets the other headers as they are: also
-- Upgrade, because a handshake needs a pass.
local NOT_FOR_CHECK = {}
for _, name in ipairs({
    "connection", "keep-alive", "te", "trailer", "transfer-encoding", "content-length", "expect",
    "proxy-connection",
}) do
    NOT_FOR_CHECK[name] = true
end

-- Headers of the check's own connection.
local NOT_FOR_VISITOR = {
    connection = true, ["content-length"] = true, ["transfer-encoding"] = true, ["keep-alive"] = true, date = true,
}

-- A list of the values of a header, whatever its first index is.
local function values(header)
    local found = {}
    for _, value in pairs(header or {}) do
        found[#found + 1] = value
    end
    return found
end

local function is_ours(cookie)
    for _, pattern in ipairs(COOKIES) do
        if cookie:find(pattern) then
            return true
        end
    end
    return false
end

-- Removes Waitroom's cookies from what the shop gets.
local function remove_cookies(txn, headers)
    local lines = values(headers["cookie"])
    txn.http:req_del_header("cookie")
    for _, cookies in ipairs(lines) do
        local kept = {}
        for cookie in cookies:gmatch("[^;]+") do
            cookie = cookie:gsub("^%s+", "")
            if cookie ~= "" and not is_ours(cookie) then
                kept[#kept + 1] = cookie
            end
        end
        if #kept > 0 then
            txn.http:req_add_header("cookie", table.concat(kept, "; "))
        end
    end
end

local function check(txn)
    local headers = txn.http:req_get_headers()
    local sent = {}
    for name, header in pairs(headers) do
        if not NOT_FOR_CHECK[name] then
            sent[name] = values(header)
        end
    end
    local target = txn.sf:path()
    local query = txn.sf:query()
    if query ~= nil and query ~= "" then
        target = target .. "?" .. query
    end
    sent["x-forwarded-method"] = { txn.sf:method() }
    sent["x-forwarded-uri"] = { target }
    local response = core.httpclient():get({
        url = WAITROOM .. "/.waitroom/check?answer=page",
        headers = sent,
        timeout = TIMEOUT_MS,
    })
    txn:set_var("txn.waitroom_admitted", false)
    local status = response and response.status
    if status == nil or status == 0 then
        txn:set_var("txn.waitroom_status", 503)
        return
    end
    if status == 200 then
        for _, name in ipairs({ "session", "room", "proof" }) do
            local value = values(response.headers["waitroom-" .. name])[1]
            if value ~= nil then
                txn:set_var("txn.waitroom_" .. name, value)
            end
        end
        local cookie = values(response.headers["set-cookie"])[1]
        if cookie ~= nil then
            txn:set_var("txn.waitroom_cookie", cookie)
        end
        remove_cookies(txn, headers)
        txn:set_var("txn.waitroom_admitted", true)
        return
    end
    local lines = {}
    for name, header in pairs(response.headers) do
        if not NOT_FOR_VISITOR[name] then
            for _, value in ipairs(values(header)) do
                lines[#lines + 1] = name .. ":" .. value
            end
        end
    end
    txn:set_var("txn.waitroom_status", status)
    txn:set_var("txn.waitroom_headers", table.concat(lines, "\n"))
    txn:set_var("txn.waitroom_body", response.body or "")
end

-- Hands the check's answer on to the visitor. A service, because the page is larger than a buffer.
local function refuse(applet)
    local body = applet:get_var("txn.waitroom_body") or "The waiting room doesn't answer. Try again in a moment.\n"
    local headers = applet:get_var("txn.waitroom_headers")
        or "content-type:text/plain\ncache-control:no-store\nretry-after:5"
    applet:set_status(applet:get_var("txn.waitroom_status"))
    for name, value in headers:gmatch("([^\n:]+):([^\n]*)") do
        applet:add_header(name, value)
    end
    applet:add_header("content-length", tostring(#body))
    applet:start_response()
    if applet.method ~= "HEAD" then
        applet:send(body)
    end
end

core.register_action("waitroom_check", { "http-req" }, check)
core.register_service("waitroom_refusal", "http", refuse)
