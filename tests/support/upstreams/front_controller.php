<?php
// A front controller as small shops have it: it looks at the path alone, never at the method, and is generous with
// spellings. Every request goes into its log, and an order is a line in a file of its own.
$path = strtok($_SERVER['REQUEST_URI'], '?');
$route = strtolower(rawurldecode($path));
$route = preg_replace('#^/index\.php(?=/|$)#', '', $route);     // PATH_INFO
$route = preg_replace('#[\x00-\x20\x7f;].*$#s', '', $route);      // what is cut off, as C's strings are
$route = preg_replace('#\.(html?|json|xml|php)?$#', '', $route);  // a format at the end
$route = preg_replace('#~$#', '', $route);                        // a copy that an editor has left
$route = preg_replace('#/+#', '/', $route);
if (isset($_SERVER['HTTP_X_ORIGINAL_URL'])) {                    // as IIS and some frameworks follow it
    $route = strtok($_SERVER['HTTP_X_ORIGINAL_URL'], '?');
}
$order = in_array($route, ['/sale', '/sale/order', '/api/order'], true);
$line = json_encode([
    'at' => microtime(true),
    'method' => $_SERVER['REQUEST_METHOD'],
    'target' => $_SERVER['REQUEST_URI'],
    'session' => $_SERVER['HTTP_WAITROOM_SESSION'] ?? '',
    'length' => strlen(file_get_contents('php://input')),
    'headers' => array_change_key_case(getallheaders()),
    'order' => $order,
], JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE) . "\n";
file_put_contents(getenv('SHOP_LOG'), $line, FILE_APPEND | LOCK_EX);
header('Cache-Control: no-store');
if (isset($_SERVER['HTTP_ORIGIN'])) {
    header('Access-Control-Allow-Origin: ' . $_SERVER['HTTP_ORIGIN']);
    header('Access-Control-Allow-Methods: GET, POST, PUT');
    header('Access-Control-Allow-Headers: content-type, x-requested-with');
}
if ($route === '/odd') {
    // What a visitor sends comes back in a header, as a language or a campaign does.
    header('X-Campaign: ' . rawurldecode($_SERVER['QUERY_STRING'] ?? ''));
}
echo $order ? "ordered\n" : "fine\n";
